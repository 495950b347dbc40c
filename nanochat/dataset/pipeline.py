"""One folder of rows from the text that goes into it: encode, pack, write, describe."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from nanochat.atomic_write import write_atomically
from nanochat.dataset.block_log import BlockLog, ready_blocks, write_failure
from nanochat.dataset.document import Document, FileIdentity
from nanochat.dataset.encoding import BATCH_CHARACTERS, Encoded, Throttle, encode
from nanochat.dataset.manifest import TOKENIZER, Manifest
from nanochat.dataset.packing import PACKING_VERSION, row_dtype
from nanochat.dataset.rows import MANIFEST, PreparedData
from nanochat.dataset.split_writer import (
    SplitWriter,
    require_rows,
    write_divided_splits,
    write_unit,
    write_validation,
)
from nanochat.dataset.validation import ONE_IN, Split
from nanochat.disk_space import free_bytes
from nanochat.errors import DataError
from nanochat.progress import Progress
from nanochat.tokenizer import Tokenizer

HELD_CHARACTERS = 64_000_000  # a text up to this stays in memory between its two readings
Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class DatasetPipeline:
    """What it takes to fill one folder, under its lock. `key`: the hash of all that decides it;
    `identities`: of the files to train on and of those to validate with."""

    split: Split
    folder: Path
    key: str
    identities: tuple[list[FileIdentity], list[FileIdentity]]
    tokenizer: Tokenizer
    sequence_length: int
    threads: int
    throttle: Throttle
    on_progress: Progress

    def build_at_once(self, text: TrainingText) -> None:
        """Hold single documents out of `text` and write both splits; leave nothing if it fails."""
        with self._remove_on_failure():
            train, validation = self._writer("train"), self._writer("validation")
            write_divided_splits(
                self._encoded(text, "pack"), train, validation, self.sequence_length
            )
            held_out = f"one document in {ONE_IN} of {self.split.source.spec}"
            self._write_manifest(train, validation, held_out, complete=True)

    def build_by_unit(
        self, text: TrainingText, on_ready: Callable[[], None], partial: PreparedData | None
    ) -> None:
        """Rows to validate with, then those to train on, block by block. `partial`: what an earlier
        call has left, which stays if this one fails too."""
        split = self.split
        assert split.held_out is not None
        source, files = split.held_out
        if partial is None:
            with self._remove_on_failure():
                validation = self._writer("validation")
                write_validation(
                    self._encoded(
                        source.documents(files), "pack validation", source.text_bytes(files)
                    ),
                    validation,
                    self.sequence_length,
                    cycling=split.cycles_validation,
                )
                nothing_yet = self._writer("train")
                partial = self._write_manifest(nothing_yet, validation, source.spec, complete=False)
        with self._record_failure(), disk_errors(self.folder):
            log = BlockLog(self.folder, on_ready)
            train = SplitWriter("train", self.folder, self.tokenizer, self.sequence_length, log)
            units = split.source.units(split.files)
            for unit in units[log.units :]:
                documents = text if len(units) == 1 else split.source.documents(unit)
                write_unit(self._encoded(documents, "pack"), train)
            require_rows(train, self.sequence_length)
        manifest = partial.manifest
        train_manifest = train.manifest(manifest.train.source, manifest.train.files)
        whole = replace(manifest, train=train_manifest, complete=True)
        write_atomically(self.folder / MANIFEST, whole.to_json())

    def _writer(self, name: str) -> SplitWriter:
        return SplitWriter(name, self.folder, self.tokenizer, self.sequence_length)

    def _encoded(
        self, documents: Iterable[Document], stage: str, total: int | None = None
    ) -> Iterator[Encoded]:
        dtype = row_dtype(self.tokenizer.vocab_size)
        return report_progress(
            encode(documents, self.tokenizer, dtype, self.threads, self.throttle),
            lambda document: document.bytes,
            stage,
            self.split.source.text_bytes(self.split.files) if total is None else total,
            self.on_progress,
        )

    def _write_manifest(
        self, train: SplitWriter, validation: SplitWriter, held_out: str, *, complete: bool
    ) -> PreparedData:
        """The manifest; last, for a folder without one is unfinished."""
        manifest = Manifest(
            identity=self.key,
            sequence_length=self.sequence_length,
            vocab_size=self.tokenizer.vocab_size,
            tokenizer_sha256=self.tokenizer.sha256,
            packing_version=PACKING_VERSION,
            train=train.manifest(self.split.source.spec, self.identities[0]),
            validation=validation.manifest(held_out, self.identities[1]),
            complete=complete,
        )
        write_atomically(self.folder / MANIFEST, manifest.to_json())
        return PreparedData(self.folder, manifest)

    @contextmanager
    def _record_failure(self) -> Iterator[None]:
        """Write down why it fails, for processes that train on the rows so far."""
        try:
            yield
        except Exception as error:
            if not ready_blocks(self.folder):
                shutil.rmtree(self.folder)
            elif isinstance(error, DataError):
                write_failure(self.folder, error)
            else:
                write_failure(self.folder, DataError(f"{type(error).__name__}: {error}"))
            raise

    @contextmanager
    def _remove_on_failure(self) -> Iterator[None]:
        self.folder.mkdir()
        try:
            self.tokenizer.save(self.folder / TOKENIZER)
            yield
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise


class TrainingText:
    """The documents to train on; read once where they are few, else as often as asked for."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self._held: list[Document] | None = None

    def __iter__(self) -> Iterator[Document]:
        if self._held is not None:
            yield from self._held
            return
        held: list[Document] = []
        size = 0
        for document in self._split.source.documents(self._split.files):
            size += len(document.text)
            if size <= HELD_CHARACTERS:
                held.append(document)
            else:
                held.clear()
            yield document
        if size <= HELD_CHARACTERS:
            self._held = held


def report_progress(
    items: Iterable[Item],
    size_of: Callable[[Item], int],
    stage: str,
    total: float,
    on_progress: Progress,
) -> Iterator[Item]:
    done, next_report = 0, 0
    for item in items:
        if done >= next_report:
            on_progress(stage, done, max(done, total))
            next_report = done + BATCH_CHARACTERS
        done += size_of(item)
        yield item
    on_progress(stage, done, done)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """A full or read-only disk as a DataError. Sources raise their own."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        raise DataError(
            f"{folder}: cannot write prepared data: {error.strerror}; "
            f"{free_bytes(folder):,} bytes are free",
            fix="free some space there (the rows need about half the bytes of the text), "
            "or use another disk",
        ) from error
