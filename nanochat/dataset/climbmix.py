"""nanochat's own text: karpathy/climbmix-400b-shuffle, published as 6,543 parquet shards.

Shards are numbered; the last one validates, the first one teaches the tokenizer, and each is packed
by itself, so that a run may begin when two of them are there. Upstream: `nanochat/dataset.py`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nanochat.dataset.document import (
    Document,
    FileIdentity,
    Source,
    SourceFile,
)
from nanochat.dataset.readers import parquet_text_bytes, read_parquet
from nanochat.errors import DataError
from nanochat.progress import Progress

CLIMBMIX = "climbmix"
ADDRESS = "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/main"
TRAINING_SHARDS = 6542  # and one more, the last, to validate with
SHARD_BYTES = 100_000_000  # about, to download
SHARD_TEXT_BYTES = 250_000_000  # about, of text (upstream)
# Tokens in rows of a shard, for rows of 2,048 and with the square root of their length below: a
# document fills one row at most. Upstream says that a shard has 250M characters, some 53M tokens;
# of English prose (2,223 documents of 1,344 tokens in the mean) rows of 2,048 keep 0.57, of 1,024
# 0.41 and of 512 0.27.
SHARD_TOKENS, SHARD_TOKENS_ROW = 30_000_000, 2048
CONCURRENT_DOWNLOADS = 2  # downloads, and shards that come before they are needed
# A hub that is away when a run begins had better be said soon; one that is away for an hour
# while the run has text is none of its business.
FIRST_PATIENCE_SECONDS, PATIENCE_SECONDS = 20.0, 3600.0


def shard_name(number: int) -> str:
    return f"shard_{number:05d}.parquet"


def shards_for(tokens: int, sequence_length: int) -> int:
    """How many give so many tokens in rows without reading any twice, about; at most all."""
    shortness = math.sqrt(min(1.0, sequence_length / SHARD_TOKENS_ROW))
    return min(TRAINING_SHARDS, math.ceil(tokens / (SHARD_TOKENS * shortness)))


def is_address(mirror: str) -> bool:
    """A mirror is an HTTP address or a folder."""
    return mirror.lower().startswith(("http://", "https://"))


class ClimbmixSource(Source):
    """The first `shards` of them, in `folder`; those that are not there are fetched."""

    def __init__(self, shards: int, folder: Path, address: str | None = ADDRESS) -> None:
        """address: None: all are there. Raises DataError where one of these then is not."""
        files = [SourceFile(name, folder / name) for name in map(shard_name, range(shards))]
        last = shard_name(TRAINING_SHARDS)
        held_out = SourceFile(last, folder / last)
        super().__init__(f"{CLIMBMIX}:{shards}", files, [held_out])
        self._address = address
        if address is None and not folder.is_dir():
            raise DataError(
                f"{folder}: no such folder",
                fix="name a folder of shards, or an address that begins with https://",
            )
        missing = [file.name for file in (*files, held_out) if not file.path.exists()]
        if address is None and missing:
            raise DataError(
                f"{folder}: {missing[0]} is not there, nor are {len(missing) - 1} more of the "
                f"{shards + 1} shards" if len(missing) > 1 else f"{folder}: no {missing[0]}",
                fix="copy them there, or leave data.mirror out: they are downloaded then",
            )  # fmt: skip
        self._downloads: ShardDownloads | None = None

    def fetch(self, files: Sequence[SourceFile], on_progress: Progress) -> None:
        if self._address is None:
            return
        if self._downloads is None:
            self._downloads = ShardDownloads(self._address, on_progress)
        self._downloads.enqueue(files)

    def wait_for(self, file: SourceFile) -> None:
        """Raises DataError or OSError where it cannot be had."""
        if self._downloads is not None:
            self._downloads.wait_for(file)

    def documents(self, files: Sequence[SourceFile] | None = None) -> Iterator[Document]:
        fix = "delete it: it is downloaded again"
        if self._address is None:
            fix = "copy the shard there again"
        for file in self._chosen(files):
            self.wait_for(file)
            try:
                yield from read_parquet(file.path)
            except DataError as error:
                raise DataError(error.message, fix=fix) from error

    def learning_files(self, files: Sequence[SourceFile]) -> Sequence[SourceFile]:
        return files[:1]

    def units(self, files: Sequence[SourceFile]) -> list[Sequence[SourceFile]]:
        return [[file] for file in files]

    def text_bytes(self, files: Sequence[SourceFile] | None = None) -> int:
        return sum(
            parquet_text_bytes(file.path) if file.path.exists() else SHARD_TEXT_BYTES
            for file in self._chosen(files)
        )

    def stored_bytes(self, files: Sequence[SourceFile]) -> int:
        return 0

    def _identity_of(self, file: SourceFile, hash_file: Callable[[Path], str]) -> FileIdentity:
        """The shards that a run needs before it begins by their content, the others by name."""
        name = f"{CLIMBMIX}/{file.name}"
        if file not in (*self.files[:1], *self.held_out):
            return FileIdentity(name, 0, "")
        self.wait_for(file)
        return super()._identity_of(file, hash_file)._replace(name=name)


def shard_count(spec: str) -> int:
    """Of `climbmix:SHARDS`. Raises DataError where it is no number of shards."""
    _, _, number = spec.partition(":")
    if not number.isdecimal() or not 1 <= int(number) <= TRAINING_SHARDS:
        raise DataError(
            f"{spec}: not a number of shards",
            fix=f"write climbmix:8, from 1 to {TRAINING_SHARDS:,}, or climbmix: as many as needed",
        )
    return int(number)


class ShardDownloads:
    """Downloads shards in the order in which they are queued, a few ahead of the one in use."""

    def __init__(self, address: str, on_progress: Progress) -> None:
        self._address = address
        self._on_progress = on_progress
        self._change = threading.Condition()
        self._queued: list[SourceFile] = []
        self._started = 0
        self._needed = 0  # shards of the queue that have been waited for, and those before them
        self._finished: dict[str, Exception | None] = {}
        self._bytes: dict[str, tuple[int, int]] = {}  # received, and of the file
        for _ in range(CONCURRENT_DOWNLOADS):
            threading.Thread(target=self._download_loop, daemon=True).start()

    def enqueue(self, files: Sequence[SourceFile]) -> None:
        with self._change:
            self._queued += files
            self._change.notify_all()

    def wait_for(self, file: SourceFile) -> None:
        """Raises what went wrong with it."""
        with self._change:
            self._needed = max(self._needed, self._queued.index(file) + 1)
            self._change.notify_all()
            self._change.wait_for(lambda: file.name in self._finished)
            error = self._finished[file.name]
        if error is not None:
            raise error

    def _download_loop(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(self._may_start)
                file = self._queued[self._started]
                first = self._started < CONCURRENT_DOWNLOADS
                self._started += 1
            error: Exception | None = None
            try:
                self._download(file, FIRST_PATIENCE_SECONDS if first else PATIENCE_SECONDS)
            except Exception as raised:  # whoever waits for it is to have it
                error = raised
            with self._change:
                self._finished[file.name] = error
                self._change.notify_all()

    def _may_start(self) -> bool:
        return self._started < min(len(self._queued), self._needed + CONCURRENT_DOWNLOADS)

    def _download(self, file: SourceFile, patience_seconds: float) -> None:
        # Imports requests: 0.1 s that other sources need not wait.
        from nanochat.dataset.download import DownloadWarnings, download

        def warn(reason: str) -> None:
            self._on_progress(f"{file.name}: {reason}: trying again", 0, None)

        warnings = DownloadWarnings(warn)

        def on_bytes(done: int, total: int | None) -> None:
            warnings.on_bytes(done)
            self._bytes[file.name] = done, total or max(done, SHARD_BYTES)
            received, sizes = zip(*list(self._bytes.values()), strict=True)
            self._on_progress("download", sum(received), sum(sizes))

        download(
            f"{self._address.rstrip('/')}/{file.name}",
            file.path,
            patience_seconds=patience_seconds,
            on_bytes=on_bytes,
            on_retry=warnings.warn,
            check=not_whole_parquet,
        )


def not_whole_parquet(path: Path) -> str | None:
    """What is wrong with a file that should be parquet, at a glance: its ends carry its name."""
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(max(0, path.stat().st_size - 4))
        return None if start == file.read() == b"PAR1" else "it sent no whole parquet file"
