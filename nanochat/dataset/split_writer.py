"""Encoded documents -> files of rows and the manifest that describes them."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nanochat.atomic_write import write_atomically
from nanochat.dataset.block_log import BlockLog, Counts
from nanochat.dataset.document import FileIdentity
from nanochat.dataset.encoding import Encoded, portions, shuffled_stretches
from nanochat.dataset.manifest import RowBlock, SplitManifest
from nanochat.dataset.packing import (
    BUFFER_DOCUMENTS,
    Ids,
    Packer,
    count_rows,
    row_dtype,
    row_pieces,
)
from nanochat.dataset.validation import MIN_ROWS, HeldOutDocuments
from nanochat.errors import DataError
from nanochat.tokenizer import Tokenizer

ROWS_PER_BLOCK = 1024  # 1 MB of 512 tokens


class SplitWriter:
    """The rows of one split: what went in, what came out."""

    def __init__(
        self, name: str, folder: Path, tokenizer: Tokenizer, sequence_length: int,
        log: BlockLog | None = None,
    ) -> None:  # fmt: skip
        """`log`: records each block; blocks that it has already are not written again."""
        self.counts = log.counts if log else Counts()
        self.blocks: list[RowBlock] = list(log.blocks) if log else []
        self._log = log
        self._name = name
        self._folder = folder
        self._tokenizer = tokenizer
        self._token_bytes = tokenizer.token_bytes()
        self._capacity = sequence_length + 1
        self._packer = self._new_packer()

    @property
    def rows(self) -> int:
        return sum(block.rows for block in self.blocks)

    def pieces(self, ids: Ids, *, continuous: bool) -> list[Ids]:
        """Count a document, ids without BOS, and cut it; none are passed over."""
        if not len(ids):
            return []
        pieces = row_pieces(ids, self._capacity, continuous=continuous)
        before = self.counts
        self.counts = Counts(
            documents=before.documents + 1,
            bytes=before.bytes + int(self._token_bytes[ids].sum()),
            ids=before.ids + len(ids),
            tokens=before.tokens + len(ids) + len(pieces),
        )
        return pieces

    def pack(self, pieces: Iterable[Ids]) -> None:
        for piece in pieces:
            self._packer.add(piece)
            while self._packer.rows >= ROWS_PER_BLOCK:
                self._write(self._packer.take(ROWS_PER_BLOCK))

    def pack_cycling(self, pieces: Iterator[Ids]) -> None:
        """As upstream's loader validates: if the pieces are fewer than its buffer holds, they
        are packed again and again, and of those longer than a row the short ones fill most rows.
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

    def end_unit(self) -> None:
        """Write what is left: what comes next is packed without it."""
        self._packer.drain()
        while self._packer.rows:
            self._write(self._packer.take(ROWS_PER_BLOCK))
        self._packer = self._new_packer()
        if self._log is not None:
            self._log.end_unit(self.counts)

    def manifest(self, source: str, files: Sequence[FileIdentity]) -> SplitManifest:
        tokens = self.rows * self._capacity
        return SplitManifest(
            source=source,
            files=tuple(files),
            blocks=tuple(self.blocks),
            documents=self.counts.documents,
            bytes=self.counts.bytes,
            tokens=tokens,
            cropped_tokens=self.counts.tokens - tokens,
        )

    def _new_packer(self) -> Packer:
        dtype = row_dtype(self._tokenizer.vocab_size)
        return Packer(self._capacity, self._tokenizer.bos_id, dtype)

    def _write(self, rows: Ids) -> None:
        if not len(rows):
            return
        data = rows.tobytes()
        name = f"{self._name}-{len(self.blocks):05d}.rows"
        block = RowBlock(name, len(rows), len(data), hashlib.sha256(data).hexdigest())
        if self._log is None or not self._log.match_recorded(block):
            write_atomically(self._folder / name, data)
            if self._log is not None:
                self._log.append(block)
        self.blocks.append(block)


def write_divided_splits(
    text: Iterable[Encoded], train: SplitWriter, validation: SplitWriter, sequence_length: int
) -> None:
    """Rows of `text`, of which single documents are held out, see `HeldOutDocuments`.

    Raises DataError where there is too little of it.
    """
    held_out = None
    for number, portion in enumerate(portions(text)):
        if held_out is None:
            held_out = HeldOutDocuments(portion, sequence_length + 1)
        for document in shuffled_stretches(portion, number):
            kept, held = held_out.split(document)
            train.pack(train.pieces(kept, continuous=document.continuous))
            validation.pack(validation.pieces(held, continuous=document.continuous))
    for writer in (train, validation):
        writer.end_unit()
    if train.rows == 0 or validation.rows < MIN_ROWS:
        ids = train.counts.ids + validation.counts.ids
        size = train.counts.bytes + validation.counts.bytes
        raise _too_small("the text", ids, size, MIN_ROWS + 1, sequence_length)


def write_validation(
    text: Iterable[Encoded], validation: SplitWriter, sequence_length: int, *, cycling: bool
) -> None:
    """Rows of text that is there to validate with. `cycling`: see
    `SplitWriter.pack_cycling`. Raises DataError where there is too little of it."""
    pieces = (
        piece
        for document in text
        for piece in validation.pieces(document.ids, continuous=document.continuous)
    )
    (validation.pack_cycling if cycling else validation.pack)(pieces)
    validation.end_unit()
    if validation.rows < MIN_ROWS:
        counts = validation.counts
        raise _too_small("the validation text", counts.ids, counts.bytes, MIN_ROWS, sequence_length)


def write_unit(text: Iterable[Encoded], train: SplitWriter) -> None:
    """Rows of one unit of the text to train on."""
    for number, portion in enumerate(portions(text)):
        for document in shuffled_stretches(portion, number):
            train.pack(train.pieces(document.ids, continuous=document.continuous))
    train.end_unit()


def require_rows(train: SplitWriter, sequence_length: int) -> None:
    """Raises DataError where all units together have not filled a row."""
    if train.rows == 0:
        counts = train.counts
        raise _too_small("the training text", counts.ids, counts.bytes, 1, sequence_length)


def _too_small(what: str, ids: int, size: int, rows: int, sequence_length: int) -> DataError:
    if not ids:
        return DataError(f"{what} is empty", fix="choose files with text in them: --data")
    needed = math.ceil(rows * sequence_length * size / ids)
    return DataError(
        f"{what} is too small: {size:,} bytes ({ids:,} tokens); {rows} rows of {sequence_length} "
        f"tokens need about {needed:,} bytes",
        fix="give more text (--data), or take shorter rows: --set sequence_length=N",
    )
