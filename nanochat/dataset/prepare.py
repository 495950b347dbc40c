"""Text -> a folder of rows: train or reuse the tokenizer, encode, pack, write, describe.

    cache/
        file-hashes.json
        tokenizers/KEY/tokenizer.json
        prepared/KEY/  train-00000.rows ... validation-00000.rows ... tokenizer.json manifest.json

Both keys are hashes of all that decides the content, so what is there is right. A folder without
a manifest is unfinished and is made again.
"""

from __future__ import annotations

import errno
import fcntl
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from nanochat.dataset.building import build
from nanochat.dataset.document import Document, FileIdentity, Source, content_hash
from nanochat.dataset.encoding import BATCH_CHARACTERS, encode
from nanochat.dataset.hashes import FileHashes
from nanochat.dataset.manifest import TOKENIZER, Manifest
from nanochat.dataset.packing import PACKING_VERSION, row_dtype
from nanochat.dataset.rows import MANIFEST, PreparedData
from nanochat.dataset.validation import ONE_IN, Split, split_source
from nanochat.errors import DataError
from nanochat.storage import sha256_of, write_atomically
from nanochat.tokenizer import MAX_CHARACTERS, TRAINER_VERSION, Tokenizer

Progress = Callable[[str, float, float | None], None]
LEARNED_CHARACTERS = 10_000
HELD_CHARACTERS = 64_000_000  # a text up to this stays in memory between its two readings
Item = TypeVar("Item")


def prepare(
    source: Source,
    *,
    cache: Path,
    sequence_length: int,
    vocab_size: int,
    validation: Source | None,
    threads: int,
    on_progress: Progress,
) -> PreparedData:
    """Prepare `source`, or find it prepared, which costs the hashing of files not seen before.

    on_progress(stage, done, total): the stages are "hash" (bytes of files), "wait" (for another
    process that prepares the same), "tokenizer" and "pack" (bytes of text, `total` an estimate).
    Raises DataError where the text is unreadable or too small or the disk is full; nothing partial
    is left then.
    """
    with _disk_errors(cache):
        split = split_source(source, validation)
        train_files, held_out_files = _identities(split, cache, on_progress)
        both = {file.sha256 for file in train_files} & {file.sha256 for file in held_out_files}
        if both:
            names = [file.name for file in held_out_files if file.sha256 in both]
            raise DataError(
                f"{names[0]}: in the text to train on and in the text to validate with",
                fix="Leave it out of one of the two.",
            )
        text = _TrainingText(split)

        key = content_hash(train_files, vocab_size, TRAINER_VERSION)
        tokenizer_file = cache / "tokenizers" / key / TOKENIZER
        with _locked(tokenizer_file.parent, on_progress):
            if not tokenizer_file.exists():
                total = min(split.source.text_bytes(split.files), MAX_CHARACTERS)
                documents = _reported(text, _characters, "tokenizer", total, on_progress)
                tokenizer = Tokenizer.train(map(_learned_from, documents), vocab_size)
                tokenizer.save(tokenizer_file)

        key = content_hash(
            train_files,
            held_out_files,
            split.validation_comes_round,
            sha256_of(tokenizer_file),
            PACKING_VERSION,
            sequence_length,
        )
        folder = cache / "prepared" / key
        with _locked(folder, on_progress):
            data = _reusable(folder)
            if data is not None:
                return data
            tokenizer = Tokenizer.load(tokenizer_file)
            folder.mkdir()
            try:
                manifest = _build(
                    split, text, tokenizer, sequence_length, threads, folder, on_progress,
                    identity=key, files=(train_files, held_out_files),
                )  # fmt: skip
                write_atomically(folder / MANIFEST, manifest.to_json())
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
    return PreparedData.load(folder)


def _build(
    split: Split,
    text: Iterable[Document],
    tokenizer: Tokenizer,
    sequence_length: int,
    threads: int,
    folder: Path,
    on_progress: Progress,
    *,
    identity: str,
    files: tuple[list[FileIdentity], list[FileIdentity]],
) -> Manifest:
    """Everything in `folder` but the manifest, which is returned."""
    dtype = row_dtype(tokenizer.vocab_size)
    tokenizer.save(folder / TOKENIZER)
    held_out = None
    held_out_name = f"one document in {ONE_IN} of {split.source.spec}"
    if split.held_out is not None:
        source, held_out_files = split.held_out
        held_out = encode(source.documents(held_out_files), tokenizer, dtype, threads)
        held_out_name = source.spec
    total = split.source.text_bytes(split.files)
    train, validation = build(
        _reported(
            encode(text, tokenizer, dtype, threads),
            lambda document: document.bytes, "pack", total, on_progress,
        ),
        held_out,
        folder=folder,
        tokenizer=tokenizer,
        sequence_length=sequence_length,
        validation_comes_round=split.validation_comes_round,
    )  # fmt: skip
    return Manifest(
        identity=identity,
        sequence_length=sequence_length,
        vocab_size=tokenizer.vocab_size,
        tokenizer_sha256=tokenizer.sha256,
        packing_version=PACKING_VERSION,
        train=train.part(split.source.spec, files[0]),
        validation=validation.part(held_out_name, files[1]),
        bytes_per_token=(train.bytes + validation.bytes) / (train.ids + validation.ids),
    )


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
    """Of the files to train on and of those to validate with (none: documents are held out)."""
    parts = [(split.source, split.files), *([split.held_out] if split.held_out else [])]
    total = sum(file.path.stat().st_size for _, files in parts for file in files)
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
    return identities[0], identities[1] if split.held_out else []


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
    """What is whole in `folder`; anything else there is removed."""
    try:
        return PreparedData.load(folder)
    except DataError:
        shutil.rmtree(folder, ignore_errors=True)
        return None


@contextmanager
def _locked(folder: Path, on_progress: Progress) -> Iterator[None]:
    """One process at a time; the lock goes with the process, however it ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress("wait", 0, None)
            fcntl.flock(file, fcntl.LOCK_EX)
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
