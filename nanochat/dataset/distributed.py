"""Prepared rows on every rank's own disk: what one lacks comes from rank 0, over the group, block
by block as training gets there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from nanochat.atomic_write import open_atomically
from nanochat.dataset.block_log import damaged_error
from nanochat.dataset.manifest import TOKENIZER, Manifest, RowBlock
from nanochat.dataset.rows import PreparedData, matches_sha256
from nanochat.errors import DataError
from nanochat.exchange import all_gather_int

PIECE_BYTES = 16 * 2**20
FAILED = b"failed:"  # in place of a manifest
# While rank 0 waits for text the others hear from it this often: gloo gives a rank up that is
# silent for as long as the group's timeout.
WAIT_SECONDS = 10.0


class DistributedData(PreparedData):
    """The rows of rank 0's folder, on every rank. All ranks make the same calls together.

    `folder` is a path on each rank's own machine; `writes`: this rank keeps files there (one per
    machine does). Files that are there already, whole, are not sent; every machine verifies.
    Raises DataError on all ranks where one has it.
    """

    def __init__(
        self, folder: Path, *, rank: int, world_size: int, writes: bool, device: torch.device
    ) -> None:
        self._rank, self._world_size, self._device = rank, world_size, device
        self._writes = writes
        self._source: PreparedData | None = None
        failure = None
        if rank == 0:
            try:
                self._source = PreparedData.load(folder)
            except DataError as error:
                failure = error
        super().__init__(folder, self._broadcast_manifest(failure))
        self._sync_file(TOKENIZER, self.manifest.tokenizer_sha256)

    def wait_for_rows(self, rows: int, keep_waiting: Callable[[], bool]) -> bool:
        """As a PreparedData's. `keep_waiting` is asked on rank 0."""
        waiting = True
        while waiting and not self._has_rows(rows):
            failure = None
            if self._source is not None:
                failure = _wait_briefly(self._source, rows, keep_waiting)
            self.manifest = self._broadcast_manifest(failure)
            self._drop_row_cache()
            waiting = bool(all_gather_int(int(keep_waiting()), self._world_size, self._device)[0])
        return self._has_rows(rows)

    def ensure_blocks(self, blocks: Sequence[RowBlock]) -> None:
        for block in blocks:
            if block.name not in self._verified:
                self._sync_file(block.name, block.sha256)
                self._verified.add(block.name)

    def _broadcast_manifest(self, failure: DataError | None) -> Manifest:
        """Rank 0's manifest, with what has grown. Raises its `failure` on every rank."""
        content = b""
        if failure is not None:
            content = FAILED + json.dumps([failure.message, failure.fix]).encode()
        elif self._source is not None:
            content = self._source.manifest.to_json()
        size = all_gather_int(len(content), self._world_size, self._device)[0]
        content = b"".join(self._broadcast_bytes(content or None, size))
        if content.startswith(FAILED):
            message, fix = json.loads(content.removeprefix(FAILED))
            raise failure or DataError(message, fix=fix)
        return Manifest.from_json(content)

    def _sync_file(self, name: str, sha256: str) -> None:
        """Make one file complete on every machine that writes."""
        path = self.path / name
        keeps = self._writes or self._rank == 0
        missing = keeps and not matches_sha256(path, sha256)
        missing_by_rank = all_gather_int(int(missing), self._world_size, self._device)
        if missing_by_rank[0]:
            raise damaged_error(path, "its content is not what was written")
        if any(missing_by_rank):
            self._broadcast_file(path, missing=missing)
            broken = missing and not matches_sha256(path, sha256)
            if any(all_gather_int(int(broken), self._world_size, self._device)):
                raise DataError(f"{path}: what came from rank 0 is not what it has")

    def _broadcast_file(self, path: Path, *, missing: bool) -> None:
        """Send a file from rank 0 to those that miss it; the others take part and keep nothing."""
        content = np.memmap(path, np.uint8, mode="r") if self._rank == 0 else None
        size = all_gather_int(
            0 if content is None else len(content), self._world_size, self._device
        )[0]
        with open_atomically(path) if missing else nullcontext() as file:
            for piece in self._broadcast_bytes(content, size):
                if file is not None:
                    file.write(piece)

    def _broadcast_bytes(
        self, content: bytes | np.ndarray[tuple[int], np.dtype[np.uint8]] | None, size: int
    ) -> Iterator[bytes]:
        """`size` bytes of rank 0, piece by piece, on every rank. `content`: None on the others."""
        for start in range(0, size, PIECE_BYTES):
            stop = min(start + PIECE_BYTES, size)
            piece = torch.empty(stop - start, dtype=torch.uint8, device=self._device)
            if content is not None:
                piece.copy_(torch.frombuffer(bytearray(content[start:stop]), dtype=torch.uint8))
            if self._world_size > 1:
                dist.broadcast(piece, src=0)
            yield piece.cpu().numpy().tobytes()


def _wait_briefly(
    data: PreparedData, rows: int, keep_waiting: Callable[[], bool]
) -> DataError | None:
    until = time.monotonic() + WAIT_SECONDS
    try:
        data.wait_for_rows(rows, lambda: keep_waiting() and time.monotonic() < until)
    except DataError as error:
        return error
    except OSError as error:
        return DataError(f"{data.path}: cannot read it: {error.strerror or error}")
    return None
