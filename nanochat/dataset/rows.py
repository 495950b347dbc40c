"""Prepared rows, read back: which, in which order, and into one array."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nanochat.dataset.document import content_hash
from nanochat.dataset.manifest import TOKENIZER, Block, Manifest
from nanochat.dataset.packing import row_dtype
from nanochat.dataset.permutation import permutation
from nanochat.errors import DataError
from nanochat.storage import sha256_of
from nanochat.tokenizer import Tokenizer

MANIFEST = "manifest.json"


class Rows:
    """Rows of token ids in memory-mapped blocks, numbered through."""

    def __init__(self, blocks: Sequence[npt.NDArray[Any]]) -> None:
        """blocks: each (rows, sequence_length + 1)."""
        self._blocks = list(blocks)
        self.block_rows = tuple(len(block) for block in blocks)
        self._ends = np.cumsum(self.block_rows)

    def __len__(self) -> int:
        return sum(self.block_rows)

    def batch(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(len(indices), sequence_length + 1): inputs are [:, :-1], targets [:, 1:]."""
        out = np.empty((len(indices), self._blocks[0].shape[1]), dtype=np.int64)
        numbers = np.asarray(indices, dtype=np.int64)
        blocks = np.searchsorted(self._ends, numbers, side="right")
        for place, (number, block) in enumerate(zip(numbers, blocks, strict=True)):
            out[place] = self._blocks[block][number - self._ends[block]]  # counted from its end
        return out


class TrainOrder:
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
            epoch, place = divmod(start, int(self._ends[-1]))
            block = int(np.searchsorted(self._ends, place, side="right"))
            first = int(self._ends[block]) - self._block_rows[block]
            some = self._shuffled(epoch, block)[place - first :][: stop - start]
            parts.append(first + some)
            start += len(some)
        return np.concatenate(parts)

    def _shuffle(self, epoch: int, block: int) -> npt.NDArray[np.int64]:
        return permutation(self._block_rows[block], self._seed, epoch, block)


class PreparedData:
    """A folder of rows with the tokenizer that made them."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def load(cls, path: Path) -> PreparedData:
        """Raises DataError where the manifest is damaged or a block's size is not what it says."""
        try:
            manifest = Manifest.from_json((path / MANIFEST).read_bytes())
        except OSError as error:
            raise DataError(f"{path}: no prepared data here: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(path / MANIFEST, str(error)) from error
        data = cls(path, manifest)
        for block in manifest.blocks:
            file = path / block.name
            size = file.stat().st_size if file.exists() else 0
            if size != block.bytes:
                raise _damaged(file, f"{size:,} bytes instead of {block.bytes:,}")
        return data

    def verify(self) -> None:
        """Read every file and compare its hash. Raises DataError for the first that differs."""
        for name, digest in self.manifest.hashes().items():
            if sha256_of(self.path / name) != digest:
                raise _damaged(self.path / name, "its content is not what was written")

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
    def train_rows(self) -> Rows:
        return self._rows(self.manifest.train.blocks)

    @functools.cached_property
    def validation_rows(self) -> Rows:
        return self._rows(self.manifest.validation.blocks)

    def _rows(self, blocks: Sequence[Block]) -> Rows:
        dtype = row_dtype(self.manifest.vocab_size)
        width = self.manifest.sequence_length + 1
        return Rows(
            [
                np.memmap(self.path / block.name, dtype, mode="r", shape=(block.rows, width))
                for block in blocks
            ]
        )


def _damaged(file: Path, what: str) -> DataError:
    return DataError(
        f"{file}: damaged: {what}",
        fix=f"Delete the folder {file.parent}; the data will be prepared again.",
    )
