"""Prepared rows, read back: which, in which order, and into one array."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nanochat.dataset.block_log import damaged_error, read_failure, ready_blocks
from nanochat.dataset.document import content_hash
from nanochat.dataset.manifest import TOKENIZER, Manifest, RowBlock
from nanochat.dataset.packing import row_dtype
from nanochat.dataset.permutation import permutation
from nanochat.errors import DataError
from nanochat.file_hash import sha256_of
from nanochat.lock import is_held
from nanochat.tokenizer import Tokenizer

MANIFEST = "manifest.json"
MAPPED_BLOCKS = 64  # a step reads from one or two, an evaluation walks through many
POLL_SECONDS = 0.5
# Without a process that prepares the text. A process that waits for its lock takes over sooner.
UNATTENDED_SECONDS = 20.0


class RowDataset:
    """Rows of token ids in blocks, numbered through."""

    def __init__(
        self, block_rows: Sequence[int], open_block: Callable[[int], npt.NDArray[Any]]
    ) -> None:
        """open_block: the number of a block -> its (rows, sequence_length + 1) ids."""
        self.block_rows = tuple(block_rows)
        self._ends = np.cumsum(self.block_rows)
        self._open = functools.lru_cache(maxsize=MAPPED_BLOCKS)(open_block)

    def __len__(self) -> int:
        return sum(self.block_rows)

    def batch(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(len(indices), sequence_length + 1): inputs are [:, :-1], targets [:, 1:]."""
        numbers = np.asarray(indices, dtype=np.int64)
        blocks = np.searchsorted(self._ends, numbers, side="right")
        rows = [
            self._open(int(block))[number - self._ends[block]]  # counted from its end
            for number, block in zip(numbers, blocks, strict=True)
        ]
        return np.array(rows, dtype=np.int64)


class RowSampler:
    """Row i of a run, i = 0, 1, 2, ... without end -> a stored row: a pure function of (seed, i).

    Epoch after epoch, block after block, shuffled inside each block: what a run has read and what
    it reads next is the one integer i, for any number of ranks.
    """

    def __init__(self, seed: int, block_rows: Sequence[int]) -> None:
        self._seed = seed
        self._block_rows = tuple(block_rows)
        self._ends = np.cumsum(self._block_rows)
        # a run walks through a block before it needs the next: two are enough
        self._shuffled = functools.lru_cache(maxsize=2)(self._shuffle)

    def row(self, i: int) -> int:
        return int(self.rows(i, i + 1)[0])

    def rows(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """(stop - start,) stored rows of i in [start, stop)."""
        parts = [np.empty(0, dtype=np.int64)]
        while start < stop:
            epoch, position = divmod(start, int(self._ends[-1]))
            block = int(np.searchsorted(self._ends, position, side="right"))
            first = int(self._ends[block]) - self._block_rows[block]
            some = self._shuffled(epoch, block)[position - first :][: stop - start]
            parts.append(first + some)
            start += len(some)
        return np.concatenate(parts)

    def blocks(self, start: int, stop: int) -> list[int]:
        """Numbers of the blocks that hold the rows of i in [start, stop), each once."""
        stored = self.rows(start, stop)
        return np.unique(np.searchsorted(self._ends, stored, side="right")).tolist()

    def _shuffle(self, epoch: int, block: int) -> npt.NDArray[np.int64]:
        return permutation(self._block_rows[block], self._seed, epoch, block)


class PreparedData:
    """A folder of rows with the tokenizer that made them. Rows to train on may still be coming."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._verified: set[str] = set()  # blocks whose content has been verified
        self._unattended_since: float | None = None

    @classmethod
    def load(cls, path: Path) -> PreparedData:
        """Raises DataError if the manifest is damaged or a block's size is not what it says."""
        try:
            manifest = Manifest.from_json((path / MANIFEST).read_bytes())
        except OSError as error:
            raise DataError(f"{path}: no prepared data here: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise damaged_error(path / MANIFEST, str(error)) from error
        if not manifest.complete:
            train = replace(manifest.train, blocks=tuple(ready_blocks(path)))
            manifest = replace(manifest, train=train)
        data = cls(path, manifest)
        for block in manifest.blocks:
            file = path / block.name
            size = file.stat().st_size if file.exists() else 0
            if size != block.bytes:
                raise damaged_error(file, f"{size:,} bytes instead of {block.bytes:,}")
        return data

    def wait_for_rows(self, rows: int, keep_waiting: Callable[[], bool]) -> bool:
        """Wait until `rows` rows to train on are known, or all there will be; False if
        `keep_waiting` returned False before that.

        Raises DataError if no process prepares them.
        """
        while not self._has_rows(rows) and keep_waiting():
            if is_held(lock_path(self.path)):  # before the look at what there is
                self._unattended_since = None
            elif self._unattended_since is None:
                self._unattended_since = time.monotonic()
            self.manifest = self.load(self.path).manifest
            self._drop_row_cache()
            since = self._unattended_since
            unattended = since is not None and time.monotonic() - since > UNATTENDED_SECONDS
            if unattended and not self._has_rows(rows):
                raise read_failure(self.path) or DataError(
                    f"{self.path}: the preparation of the text has ended before its end",
                    fix="resume the run: the preparation resumes with it",
                )
            if not self._has_rows(rows):
                time.sleep(POLL_SECONDS)
        return self._has_rows(rows)

    def ensure_blocks(self, blocks: Sequence[RowBlock]) -> None:
        """Verify blocks before they are read. Raises DataError if one is not what was written."""
        for block in blocks:
            if block.name not in self._verified:
                if not matches_sha256(self.path / block.name, block.sha256):
                    raise damaged_error(
                        self.path / block.name, "its content is not what was written"
                    )
                self._verified.add(block.name)

    def identity(self) -> dict[str, Any]:
        """What must be the same where a run is resumed, flat, for a diff."""
        manifest = self.manifest
        return {
            "data": manifest.identity,
            "data.train": content_hash(manifest.train.files),
            "data.validation": content_hash(manifest.validation.files),
            "tokenizer": manifest.tokenizer_sha256,
            "packing_version": manifest.packing_version,
        }

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.path / TOKENIZER)

    @functools.cached_property
    def train_rows(self) -> RowDataset:
        return self._rows(self.manifest.train.blocks)

    @functools.cached_property
    def validation_rows(self) -> RowDataset:
        return self._rows(self.manifest.validation.blocks)

    def _has_rows(self, rows: int) -> bool:
        return self.manifest.complete or self.manifest.train.rows >= rows

    def _drop_row_cache(self) -> None:
        """Forget what was derived from an earlier manifest."""
        self.__dict__.pop("train_rows", None)

    def _rows(self, blocks: Sequence[RowBlock]) -> RowDataset:
        dtype = row_dtype(self.manifest.vocab_size)
        width = self.manifest.sequence_length + 1

        def open_block(number: int) -> npt.NDArray[Any]:
            block = blocks[number]
            return np.memmap(self.path / block.name, dtype, mode="r", shape=(block.rows, width))

        return RowDataset([block.rows for block in blocks], open_block)


def matches_sha256(path: Path, sha256: str) -> bool:
    return path.exists() and sha256_of(path) == sha256


def lock_path(folder: Path) -> Path:
    """Held by the process that prepares what is in `folder`."""
    return folder.with_name(f"{folder.name}.lock")
