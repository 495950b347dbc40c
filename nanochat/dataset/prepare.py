"""Text -> a folder of rows: train or reuse the tokenizer, encode, pack, write, describe.

    cache/
        file-hashes.json
        tokenizers/KEY/tokenizer.json
        prepared/KEY/  train-00000.rows ... validation-00000.rows ... tokenizer.json manifest.json

Both keys are hashes of all that decides the content, so what is there is right. Text with files of
its own to validate with can be trained on from its first block on: see `growth`. Any other is
whole or not there.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from nanochat.dataset.building import (
    PartBuilder,
    build_dividing,
    build_unit,
    build_validation,
    require_rows,
)
from nanochat.dataset.document import (
    Document,
    FileIdentity,
    Progress,
    Source,
    content_hash,
)
from nanochat.dataset.encoding import BATCH_CHARACTERS, Encoded, Pace, encode
from nanochat.dataset.growth import Growth, ready_blocks, write_failure
from nanochat.dataset.hashes import FileHashes
from nanochat.dataset.manifest import TOKENIZER, Manifest
from nanochat.dataset.packing import PACKING_VERSION, row_dtype
from nanochat.dataset.rows import MANIFEST, POLL_SECONDS, PreparedData, lock_of
from nanochat.dataset.validation import ONE_IN, Split, split_source
from nanochat.errors import DataError
from nanochat.lock import Held, hold
from nanochat.storage import sha256_of, write_atomically
from nanochat.tokenizer import MAX_CHARACTERS, TRAINER_VERSION, Tokenizer

LEARNED_CHARACTERS = 10_000
HELD_CHARACTERS = 64_000_000  # a text up to this stays in memory between its two readings
Item = TypeVar("Item")
OnReady = Callable[[PreparedData], None]


def prepare(
    source: Source,
    *,
    cache: Path,
    sequence_length: int,
    vocab_size: int,
    validation: Source | None,
    threads: int,
    on_progress: Progress,
    on_ready: OnReady | None = None,
) -> PreparedData:
    """Prepare `source`, or find it prepared, which costs the hashing of files not seen before.

    on_progress(stage, done, total): the stages are "hash" (bytes of files), "download" (bytes),
    "wait" (for another process that prepares the same), "tokenizer" and "pack" (bytes of text,
    `total` an estimate). `on_ready` is called as soon as training can begin; the rest is then
    prepared at the lowest priority of this thread and its helpers. Raises DataError where the text
    is unreadable or too small or the disk is full; what is there then is whole.
    """
    with _disk_errors(cache):
        split = split_source(source, validation)
        held_source, held_files = split.held_out or (source, ())
        held_source.fetch(held_files, on_progress)
        source.fetch(split.files, on_progress)
        identities = _identities(split, cache, on_progress)
        text = _TrainingText(split)
        tokenizer_file = _trained_tokenizer(
            split, identities[0], text, cache, vocab_size, on_progress
        )
        key = content_hash(
            *identities,
            split.validation_comes_round,
            sha256_of(tokenizer_file),
            PACKING_VERSION,
            sequence_length,
        )
        folder = cache / "prepared" / key
        pace = Pace()
        waiting = True

        def announce() -> None:
            nonlocal waiting
            if waiting and on_ready is not None:
                waiting = False
                on_ready(PreparedData.load(folder))
                pace.relax()
                pace.follow()

        def look() -> None:
            """Whether another process has come far enough."""
            with contextlib.suppress(DataError):
                if PreparedData.load(folder).manifest.train.blocks:
                    announce()

        with _locked(folder, on_progress, look):
            data = _reusable(folder)
            if data is None or not data.manifest.complete:
                tokenizer = Tokenizer.load(tokenizer_file)
                work = _Work(
                    split, folder, tokenizer, sequence_length, threads, pace, on_progress,
                    key, identities,
                )  # fmt: skip
                if split.held_out is None:
                    work.build_dividing(text)
                else:
                    work.build_by_unit(text, announce, begun=data)
            announce()
    return PreparedData.load(folder)


class _Work:
    """What it takes to fill one folder."""

    def __init__(
        self, split: Split, folder: Path, tokenizer: Tokenizer, sequence_length: int, threads: int,
        pace: Pace, on_progress: Progress, key: str,
        identities: tuple[list[FileIdentity], list[FileIdentity]],
    ) -> None:  # fmt: skip
        self.split, self.folder, self.tokenizer = split, folder, tokenizer
        self.sequence_length, self.threads, self.pace = sequence_length, threads, pace
        self.on_progress, self.key, self.identities = on_progress, key, identities

    def build_dividing(self, text: _TrainingText) -> None:
        """Nothing is left where it fails."""
        with self._removed_where_it_fails():
            train, validation = self._part("train"), self._part("validation")
            build_dividing(self._encoded(text, "pack"), train, validation, self.sequence_length)
            held_out = f"one document in {ONE_IN} of {self.split.source.spec}"
            self._describe(train, validation, held_out, complete=True)

    def build_by_unit(
        self, text: _TrainingText, announce: Callable[[], None], begun: PreparedData | None
    ) -> None:
        """Rows to validate with, then those to train on, block by block. `begun`: what an earlier
        call has left, which stays there where this one fails, too."""
        split = self.split
        assert split.held_out is not None
        source, files = split.held_out
        if begun is None:
            with self._removed_where_it_fails():
                validation = self._part("validation")
                build_validation(
                    self._encoded(
                        source.documents(files), "pack validation", source.text_bytes(files)
                    ),
                    validation,
                    self.sequence_length,
                    comes_round=split.validation_comes_round,
                )
                nothing_yet = self._part("train")
                begun = self._describe(nothing_yet, validation, source.spec, complete=False)
        try:
            growth = Growth(self.folder, announce)
            train = PartBuilder("train", self.folder, self.tokenizer, self.sequence_length, growth)
            units = split.source.units(split.files)
            for unit in units[growth.units :]:
                documents = text if len(units) == 1 else split.source.documents(unit)
                build_unit(self._encoded(documents, "pack"), train)
            require_rows(train, self.sequence_length)
        except DataError as error:
            if ready_blocks(self.folder):
                write_failure(self.folder, error)
            else:
                shutil.rmtree(self.folder)
            raise
        manifest = begun.manifest
        part = train.part(manifest.train.source, manifest.train.files)
        whole = replace(manifest, train=part, complete=True)
        write_atomically(self.folder / MANIFEST, whole.to_json())

    def _part(self, name: str) -> PartBuilder:
        return PartBuilder(name, self.folder, self.tokenizer, self.sequence_length)

    def _encoded(
        self, documents: Iterable[Document], stage: str, total: int | None = None
    ) -> Iterator[Encoded]:
        dtype = row_dtype(self.tokenizer.vocab_size)
        return _reported(
            encode(documents, self.tokenizer, dtype, self.threads, self.pace),
            lambda document: document.bytes,
            stage,
            self.split.source.text_bytes(self.split.files) if total is None else total,
            self.on_progress,
        )

    def _describe(
        self, train: PartBuilder, validation: PartBuilder, held_out: str, *, complete: bool
    ) -> PreparedData:
        """The manifest; last, for a folder without one is unfinished."""
        ids = train.counts.ids + validation.counts.ids
        manifest = Manifest(
            identity=self.key,
            sequence_length=self.sequence_length,
            vocab_size=self.tokenizer.vocab_size,
            tokenizer_sha256=self.tokenizer.sha256,
            packing_version=PACKING_VERSION,
            train=train.part(self.split.source.spec, self.identities[0]),
            validation=validation.part(held_out, self.identities[1]),
            bytes_per_token=(train.counts.bytes + validation.counts.bytes) / ids,
            complete=complete,
        )
        write_atomically(self.folder / MANIFEST, manifest.to_json())
        return PreparedData(self.folder, manifest)

    @contextmanager
    def _removed_where_it_fails(self) -> Iterator[None]:
        self.folder.mkdir()
        try:
            self.tokenizer.save(self.folder / TOKENIZER)
            yield
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise


def _trained_tokenizer(
    split: Split,
    identities: Sequence[FileIdentity],
    text: _TrainingText,
    cache: Path,
    vocab_size: int,
    on_progress: Progress,
) -> Path:
    """Its file: trained now, or before from the same text."""
    files = split.source.learning_files(split.files)
    names = {file.name for file in files}
    learned = [identity for identity in identities if identity.name in names]
    path = cache / "tokenizers" / content_hash(learned, vocab_size, TRAINER_VERSION) / TOKENIZER
    with _locked(path.parent, on_progress):
        if not path.exists():
            whole = len(files) == len(split.files)
            documents = text if whole else split.source.documents(files)
            total = min(split.source.text_bytes(files), MAX_CHARACTERS)
            reported = _reported(documents, _characters, "tokenizer", total, on_progress)
            Tokenizer.train(map(_learned_from, reported), vocab_size).save(path)
    return path


class _TrainingText:
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


def _identities(
    split: Split, cache: Path, on_progress: Progress
) -> tuple[list[FileIdentity], list[FileIdentity]]:
    """Of the files to train on and of those to validate with (none: documents are held out).

    Raises DataError where a file is in both.
    """
    parts = [(split.source, split.files), *([split.held_out] if split.held_out else [])]
    total = sum(source.stored_bytes(files) for source, files in parts)
    hashes = FileHashes(cache / "file-hashes.json")
    done = 0

    def hash_file(path: Path) -> str:
        nonlocal done
        digest = hashes.sha256(path)
        done += path.stat().st_size
        on_progress("hash", done, total)
        return digest

    identities = [source.identity(files, hash_file) for source, files in parts]
    hashes.save()
    train, held_out = identities[0], identities[1] if split.held_out else []
    known = {file.sha256 for file in train if file.sha256}
    for file in held_out:
        if file.sha256 in known:
            raise DataError(
                f"{file.name}: in the text to train on and in the text to validate with",
                fix="Leave it out of one of the two.",
            )
    return train, held_out


def _learned_from(document: Document) -> str:
    """What the tokenizer sees of a document: upstream's rule, so that a few long ones do not
    decide the vocabulary. 1% more bytes to a token on the rows that are trained on."""
    return document.text if document.continuous else document.text[:LEARNED_CHARACTERS]


def _characters(document: Document) -> int:
    return len(document.text)


def _reported(
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


def _reusable(folder: Path) -> PreparedData | None:
    """What is in `folder`, all of it or so far; removed where it is damaged."""
    try:
        return PreparedData.load(folder)
    except DataError:
        shutil.rmtree(folder, ignore_errors=True)
        return None


@contextmanager
def _locked(
    folder: Path, on_progress: Progress, look: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """One process at a time; the lock goes with the process, however it ends. `look` is called
    again and again while it waits."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(hold(lock_of(folder), seconds=0))
                break
            except Held:
                on_progress("wait", 0, None)
                look()
                time.sleep(POLL_SECONDS)
        yield


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """A full or read-only disk as a DataError. Sources raise their own."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        free = shutil.disk_usage(folder).free
        raise DataError(
            f"{folder}: cannot write prepared data: {error.strerror}; {free:,} bytes are free",
            fix="Free some space there (the rows need about half the bytes of the text), "
            "or use another disk.",
        ) from error
