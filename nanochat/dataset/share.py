"""Prepared rows on every rank's own disk: what one lacks comes from rank 0, over the group."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from nanochat.dataset.manifest import Manifest
from nanochat.dataset.rows import MANIFEST, PreparedData
from nanochat.exchange import agree
from nanochat.storage import open_atomically, sha256_of, write_atomically

PIECE_BYTES = 16 * 2**20


def share(
    folder: Path, *, rank: int, world_size: int, writes: bool, device: torch.device
) -> PreparedData:
    """The rows in `folder` of rank 0, on every rank, with every byte verified.

    `folder` is a path on each rank's own machine; `writes`: this rank keeps files there (one per
    machine does). Files that are there already, whole, are not sent. Raises DataError where what
    has come is not what was sent.
    """
    if world_size == 1:
        return PreparedData.load(folder)
    source = PreparedData.load(folder) if rank == 0 else None
    described = (folder / MANIFEST).read_bytes() if source else b""
    size = max(agree(len(described), world_size, device))
    manifest = b"".join(_broadcast(described if source else None, size, device))
    hashes = Manifest.from_json(manifest).hashes()
    for name, digest in hashes.items():
        path = folder / name
        lacks = writes and rank != 0 and not (path.exists() and sha256_of(path) == digest)
        if any(agree(int(lacks), world_size, device)):
            _send(path, lacks=lacks, leads=rank == 0, world_size=world_size, device=device)
    if writes and not _holds(folder / MANIFEST, manifest):
        write_atomically(folder / MANIFEST, manifest)  # last: a folder without is unfinished
    agree(1, world_size, device)  # the other ranks of a machine read what its first has written
    data = PreparedData.load(folder)
    if writes and rank != 0:
        data.verify()
    return data


def _holds(path: Path, content: bytes) -> bool:
    return path.exists() and path.read_bytes() == content


def _send(
    path: Path, *, lacks: bool, leads: bool, world_size: int, device: torch.device
) -> None:  # fmt: skip
    """One file from rank 0 to those that lack it; the others take part and keep nothing."""
    content = np.memmap(path, np.uint8, mode="r") if leads else None
    size = max(agree(0 if content is None else len(content), world_size, device))
    with open_atomically(path) if lacks else nullcontext() as file:
        for piece in _broadcast(content, size, device):
            if file is not None:
                file.write(piece)


def _broadcast(
    content: bytes | np.ndarray[tuple[int], np.dtype[np.uint8]] | None,
    size: int,
    device: torch.device,
) -> Iterator[bytes]:
    """`size` bytes of rank 0, piece by piece, on every rank. `content`: None on the others."""
    for start in range(0, size, PIECE_BYTES):
        stop = min(start + PIECE_BYTES, size)
        piece = torch.empty(stop - start, dtype=torch.uint8, device=device)
        if content is not None:
            piece.copy_(torch.frombuffer(bytearray(content[start:stop]), dtype=torch.uint8))
        dist.broadcast(piece, src=0)
        yield piece.cpu().numpy().tobytes()
