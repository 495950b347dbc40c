"""Encoded documents -> files of rows and the manifest that describes them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from nanochat.dataset.document import FileIdentity
from nanochat.dataset.encoding import Encoded, blocks
from nanochat.dataset.manifest import Block, Part
from nanochat.dataset.packing import Ids, Packer, row_dtype
from nanochat.dataset.validation import LEAST_ROWS, HeldOutDocuments
from nanochat.errors import DataError
from nanochat.storage import write_atomically
from nanochat.tokenizer import Tokenizer


class PartBuilder:
    """The rows of one split: what went in, what came out."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, sequence_length: int) -> None:
        self.documents = 0
        self.bytes = 0
        self.ids = 0  # ordinary tokens
        self.blocks: list[Block] = []
        self._folder = folder
        self._tokenizer = tokenizer
        self._token_bytes = tokenizer.token_bytes()
        self._capacity = sequence_length + 1
        self._placeable = 0
        self._packer = self._new_packer()

    @property
    def rows(self) -> int:
        return sum(block.rows for block in self.blocks)

    def add(self, ids: Ids, *, continuous: bool) -> None:
        """A document's ids without BOS; none are passed over."""
        if len(ids):
            self.documents += 1
            self.bytes += int(self._token_bytes[ids].sum())
            self.ids += len(ids)
            self._packer.add(ids, continuous=continuous)

    def finish_block(self, name: str) -> None:
        """Write the rows of the documents since the last block, where they fill any."""
        rows = self._packer.drain()
        self._placeable += self._packer.tokens
        self._packer = self._new_packer()
        if len(rows):
            data = rows.tobytes()
            write_atomically(self._folder / name, data)
            digest = hashlib.sha256(data).hexdigest()
            self.blocks.append(Block(name, len(rows), len(data), digest))

    def part(self, source: str, files: Sequence[FileIdentity]) -> Part:
        tokens = self.rows * self._capacity
        return Part(
            source=source,
            files=tuple(files),
            blocks=tuple(self.blocks),
            documents=self.documents,
            bytes=self.bytes,
            tokens=tokens,
            cropped_tokens=self._placeable - tokens,
        )

    def _new_packer(self) -> Packer:
        dtype = row_dtype(self._tokenizer.vocab_size)
        return Packer(self._capacity, self._tokenizer.bos_id, dtype)


def build(
    train_text: Iterable[Encoded],
    validation_text: Iterable[Encoded] | None,
    *,
    folder: Path,
    tokenizer: Tokenizer,
    sequence_length: int,
) -> tuple[PartBuilder, PartBuilder]:
    """Write train-00000.rows, ... and validation.rows; the parts that they make.

    validation_text None: documents of the training text are held out. Raises DataError where
    there is too little of either.
    """
    train = PartBuilder(folder, tokenizer, sequence_length)
    validation = PartBuilder(folder, tokenizer, sequence_length)
    held_out = None
    for number, block in enumerate(blocks(train_text)):
        if number == 0 and validation_text is None:
            held_out = HeldOutDocuments(block, sequence_length + 1, tokenizer.bos_id)
        for document in block:
            kept, held = held_out.divide(document) if held_out else (document.ids, document.ids[:0])
            train.add(kept, continuous=document.continuous)
            validation.add(held, continuous=document.continuous)
        train.finish_block(f"train-{number:05d}.rows")
    for document in validation_text or ():
        validation.add(document.ids, continuous=document.continuous)
    validation.finish_block("validation.rows")

    if validation_text is None:
        total = train.ids + validation.ids, train.bytes + validation.bytes
        if train.rows == 0 or validation.rows < LEAST_ROWS:
            raise _too_small("the text", *total, LEAST_ROWS + 1, sequence_length)
    elif train.rows == 0:
        raise _too_small("the training text", train.ids, train.bytes, 1, sequence_length)
    elif validation.rows < LEAST_ROWS:
        counts = validation.ids, validation.bytes
        raise _too_small("the validation text", *counts, LEAST_ROWS, sequence_length)
    return train, validation


def _too_small(what: str, ids: int, size: int, rows: int, sequence_length: int) -> DataError:
    if not ids:
        return DataError(f"{what} is empty", fix="Choose files with text in them.")
    needed = math.ceil(rows * sequence_length * size / ids)
    return DataError(
        f"{what} is too small: {size:,} bytes ({ids:,} tokens); {rows} rows of {sequence_length} "
        f"tokens need about {needed:,} bytes",
        fix="Give more text, or set a smaller sequence_length.",
    )
