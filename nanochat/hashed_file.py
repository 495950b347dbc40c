"""Large files, hashed while they are written and kept out of the kernel's cache of files."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

# Small enough to stay in a core's cache while it is filled, hashed and written.
BLOCK_BYTES = 2**20
# Where the system has it: 0.73 GB take 0.1 s of a core, 0.2 to 1.3 s through the cache of files,
# from which they would push out the rows of the text.
_DIRECT: int = getattr(os, "O_DIRECT", 0)
_DIRECT_BYTES = 4096  # what is written so comes in multiples of this, from such an address


def write_hashed(path: Path, parts: Iterable[memoryview]) -> dict[str, Any]:
    """Write a new file and bring it to the disk. What it should be: `bytes` and `sha256`.

    The hash is of the memory that was written, not of what the disk has made of it. The
    interpreter is free for other threads meanwhile. Raises OSError.
    """
    digest, size, rest = hashlib.sha256(), 0, b""
    block = memoryview(mmap.mmap(-1, BLOCK_BYTES))  # at the beginning of a page
    with _open_direct(path) as file:
        for count in _filled(block, parts):
            digest.update(block[:count])
            size += count
            whole = count - count % _DIRECT_BYTES  # less in the last block only
            _write(file, block[:whole])
            rest = bytes(block[whole:count])
    with path.open("ab") as file:
        file.write(rest)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def _filled(block: memoryview, parts: Iterable[memoryview]) -> Iterator[int]:
    """Fill `block` with the bytes of `parts`, again and again: how many there are each time."""
    filled = 0
    for part in parts:
        begin = 0
        while begin < len(part):
            count = min(len(block) - filled, len(part) - begin)
            block[filled : filled + count] = part[begin : begin + count]
            filled, begin = filled + count, begin + count
            if filled == len(block):
                yield filled
                filled = 0
    if filled:
        yield filled


def _open_direct(path: Path) -> Any:
    def opener(name: str, flags: int) -> int:
        try:
            return os.open(name, flags | _DIRECT, 0o666)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # Not every file system can; some have made the file before they refuse it.
            return os.open(name, flags & ~os.O_EXCL, 0o666)

    return open(path, "xb", buffering=0, opener=opener)


def _write(file: Any, data: memoryview) -> None:
    while len(data):
        try:
            data = data[file.write(data) :]
        except OSError as error:  # refused only here, or what is left of a short write
            if error.errno != errno.EINVAL or not _end_direct(file):
                raise


def _end_direct(file: Any) -> bool:
    """Write through the cache of files from here on. False: it was so before."""
    if not _DIRECT:
        return False
    import fcntl  # Windows has neither

    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    fcntl.fcntl(file, fcntl.F_SETFL, flags & ~_DIRECT)
    return bool(flags & _DIRECT)
