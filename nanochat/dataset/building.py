"""Encoded documents -> files of rows and the manifest that describes them."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nanochat.dataset.document import FileIdentity
from nanochat.dataset.encoding import Encoded, portions, shuffled_stretches
from nanochat.dataset.manifest import Block, Part
from nanochat.dataset.packing import (
    BUFFER_DOCUMENTS,
    Ids,
    Packer,
    count_rows,
    row_dtype,
    row_pieces,
)
from nanochat.dataset.validation import LEAST_ROWS, HeldOutDocuments
from nanochat.errors import DataError
from nanochat.storage import write_atomically
from nanochat.tokenizer import Tokenizer

ROWS_PER_BLOCK = 1024  # 1 MB of 512 tokens


class PartBuilder:
    """The rows of one split: what went in, what came out."""

    def __init__(self, name: str, folder: Path, tokenizer: Tokenizer, sequence_length: int) -> None:
        self.documents = 0
        self.bytes = 0
        self.ids = 0  # ordinary tokens
        self.blocks: list[Block] = []
        self._name = name
        self._folder = folder
        self._tokenizer = tokenizer
        self._token_bytes = tokenizer.token_bytes()
        self._capacity = sequence_length + 1
        self._packer = self._new_packer()
        self._tokens = 0  # of all pieces, with the BOS of each

    @property
    def rows(self) -> int:
        return sum(block.rows for block in self.blocks)

    def pieces(self, ids: Ids, *, continuous: bool) -> list[Ids]:
        """Count a document, ids without BOS, and cut it; none are passed over."""
        if not len(ids):
            return []
        pieces = row_pieces(ids, self._capacity, continuous=continuous)
        self.documents += 1
        self.bytes += int(self._token_bytes[ids].sum())
        self.ids += len(ids)
        self._tokens += len(ids) + len(pieces)
        return pieces

    def pack(self, pieces: Iterable[Ids]) -> None:
        for piece in pieces:
            self._packer.add(piece)
            while self._packer.rows >= ROWS_PER_BLOCK:
                self._write(self._packer.take(ROWS_PER_BLOCK))

    def pack_coming_round(self, pieces: Iterator[Ids]) -> None:
        """As upstream's loader validates: where the pieces are fewer than its buffer holds, they
        come round again and again, and of those longer than a row the short ones fill most rows.
        No more rows than the pieces fill in one round."""
        few = list(itertools.islice(pieces, BUFFER_DOCUMENTS))
        if len(few) == BUFFER_DOCUMENTS:
            self.pack(itertools.chain(few, pieces))
            return
        rows = count_rows(few, self._capacity)
        packer = self._new_packer()
        for piece in itertools.cycle(few):
            if packer.rows >= rows:
                break
            packer.add(piece)
        self._write(packer.take(rows))

    def finish(self) -> None:
        """Write what is left."""
        self._packer.drain()
        while self._packer.rows:
            self._write(self._packer.take(ROWS_PER_BLOCK))

    def part(self, source: str, files: Sequence[FileIdentity]) -> Part:
        tokens = self.rows * self._capacity
        return Part(
            source=source,
            files=tuple(files),
            blocks=tuple(self.blocks),
            documents=self.documents,
            bytes=self.bytes,
            tokens=tokens,
            cropped_tokens=self._tokens - tokens,
        )

    def _new_packer(self) -> Packer:
        dtype = row_dtype(self._tokenizer.vocab_size)
        return Packer(self._capacity, self._tokenizer.bos_id, dtype)

    def _write(self, rows: Ids) -> None:
        if not len(rows):
            return
        data = rows.tobytes()
        name = f"{self._name}-{len(self.blocks):05d}.rows"
        write_atomically(self._folder / name, data)
        digest = hashlib.sha256(data).hexdigest()
        self.blocks.append(Block(name, len(rows), len(data), digest))


def build(
    train_text: Iterable[Encoded],
    validation_text: Iterable[Encoded] | None,
    *,
    folder: Path,
    tokenizer: Tokenizer,
    sequence_length: int,
    validation_comes_round: bool,
) -> tuple[PartBuilder, PartBuilder]:
    """Write train-00000.rows, ... and validation-00000.rows, ...; the parts that they make.

    validation_text None: documents of the training text are held out. `validation_comes_round`:
    see `PartBuilder.pack_coming_round`. Raises DataError where there is too little of either.
    """
    train = PartBuilder("train", folder, tokenizer, sequence_length)
    validation = PartBuilder("validation", folder, tokenizer, sequence_length)
    held_out = None
    for number, portion in enumerate(portions(train_text)):
        if number == 0 and validation_text is None:
            held_out = HeldOutDocuments(portion, sequence_length + 1)
        for document in shuffled_stretches(portion, number):
            kept, held = held_out.divide(document) if held_out else (document.ids, document.ids[:0])
            train.pack(train.pieces(kept, continuous=document.continuous))
            validation.pack(validation.pieces(held, continuous=document.continuous))
    train.finish()
    if validation_text is not None:
        pieces = (
            piece
            for document in validation_text
            for piece in validation.pieces(document.ids, continuous=document.continuous)
        )
        (validation.pack_coming_round if validation_comes_round else validation.pack)(pieces)
    validation.finish()

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
