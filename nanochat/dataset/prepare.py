"""Text -> a folder of rows: train or reuse the tokenizer, encode, pack, write, describe.

    cache/
        file-hashes.json
        tokenizers/KEY/tokenizer.json
        prepared/KEY/  train-00000.rows ... validation-00000.rows ... tokenizer.json manifest.json

Both keys are hashes of all that decides the content, so what is there is right. Text with files of
its own to validate with can be trained on from its first block on: see `block_log`. Any other is
whole or not there.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nanochat.dataset.block_log import ready_blocks, truncate_at
from nanochat.dataset.document import (
    Document,
    FileIdentity,
    Source,
    content_hash,
)
from nanochat.dataset.encoding import Throttle
from nanochat.dataset.manifest import TOKENIZER
from nanochat.dataset.packing import PACKING_VERSION
from nanochat.dataset.pipeline import DatasetPipeline, TrainingText, disk_errors, report_progress
from nanochat.dataset.rows import POLL_SECONDS, PreparedData, lock_path
from nanochat.dataset.validation import Split, split_source
from nanochat.errors import DataError
from nanochat.file_hash import FileHashes, sha256_of
from nanochat.lock import LockHeld, hold_lock
from nanochat.progress import Progress
from nanochat.tokenizer import MAX_CHARACTERS, TRAINER_VERSION, Tokenizer

LEARNED_CHARACTERS = 10_000
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
    `total` an estimate); why a download is tried again comes as a stage without a total. `on_ready`
    is called as soon as training can begin; the rest is then prepared at the lowest priority of
    this thread and its helpers. Raises DataError where the text is unreadable or too small or the
    disk is full; what is there then is whole.
    """
    with disk_errors(cache):
        split = split_source(source, validation)
        held_source, held_files = split.held_out or (source, ())
        held_source.fetch(held_files, on_progress)
        source.fetch(split.files, on_progress)
        identities = _identities(split, cache, on_progress)
        text = TrainingText(split)
        tokenizer_file = _trained_tokenizer(
            split, identities[0], text, cache, vocab_size, on_progress
        )
        key = content_hash(
            *identities,
            split.cycles_validation,
            sha256_of(tokenizer_file),
            PACKING_VERSION,
            sequence_length,
        )
        folder = cache / "prepared" / key
        ready = _ReadySignal(folder, on_ready)
        with _locked(folder, on_progress, ready.poll):
            data = _reusable(folder)
            if data is None or not data.manifest.complete:
                pipeline = DatasetPipeline(
                    split=split,
                    folder=folder,
                    key=key,
                    identities=identities,
                    tokenizer=Tokenizer.load(tokenizer_file),
                    sequence_length=sequence_length,
                    threads=threads,
                    throttle=ready.throttle,
                    on_progress=on_progress,
                )
                if split.held_out is None:
                    pipeline.build_at_once(text)
                else:
                    pipeline.build_by_unit(text, ready.send, partial=data)
            ready.send()
    return PreparedData.load(folder)


class _ReadySignal:
    """Tells the caller once that training can begin; preparation then yields its cores."""

    def __init__(self, folder: Path, on_ready: OnReady | None) -> None:
        self.throttle = Throttle()
        self._folder = folder
        self._on_ready = on_ready

    def send(self) -> None:
        if self._on_ready is not None:
            on_ready, self._on_ready = self._on_ready, None
            on_ready(PreparedData.load(self._folder))
            self.throttle.lower_priority()
            self.throttle.apply()

    def poll(self) -> None:
        """Send it if another process has prepared enough."""
        with contextlib.suppress(DataError):
            if self._on_ready and PreparedData.load(self._folder).manifest.train.blocks:
                self.send()


def _trained_tokenizer(
    split: Split,
    identities: Sequence[FileIdentity],
    text: TrainingText,
    cache: Path,
    vocab_size: int,
    on_progress: Progress,
) -> Path:
    """Its file: trained now, or before from the same text."""
    files = split.source.learning_files(split.files)
    learned = identities[: len(files)]  # they are the first
    path = cache / "tokenizers" / content_hash(learned, vocab_size, TRAINER_VERSION) / TOKENIZER
    with _locked(path.parent, on_progress):
        if not path.exists():
            whole = len(files) == len(split.files)
            documents = text if whole else split.source.documents(files)
            total = min(split.source.text_bytes(files), MAX_CHARACTERS)
            seen = report_progress(documents, _characters, "tokenizer", total, on_progress)
            Tokenizer.train(map(_learned_from, seen), vocab_size).save(path)
    return path


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
        if total:
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
                fix="leave it out of one of the two: --data, or --set data.validation=TEXT",
            )
    return train, held_out


def _learned_from(document: Document) -> str:
    """What the tokenizer sees of a document: upstream's rule, so that a few long ones do not
    decide the vocabulary. 1% more bytes to a token on the rows that are trained on."""
    return document.text if document.continuous else document.text[:LEARNED_CHARACTERS]


def _characters(document: Document) -> int:
    return len(document.text)


def _reusable(folder: Path) -> PreparedData | None:
    """What is in `folder`, all of it or so far, up to the first unit that is damaged."""
    try:
        for block in ready_blocks(folder):
            file = folder / block.name
            if not file.exists() or file.stat().st_size != block.bytes:
                truncate_at(folder, block.name)
                break
        return PreparedData.load(folder)
    except DataError:
        shutil.rmtree(folder, ignore_errors=True)
        return None


@contextmanager
def _locked(
    folder: Path, on_progress: Progress, on_wait: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """One process at a time; the lock goes with the process, however it ends. `on_wait` is called
    repeatedly while it waits."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(hold_lock(lock_path(folder), seconds=0))
                break
            except LockHeld:
                on_progress("wait", 0, None)
                on_wait()
                time.sleep(POLL_SECONDS)
        yield
