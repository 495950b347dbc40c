"""Locks that the kernel lets go of when their holder dies, however it dies."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

LOCK_SECONDS = 2.0  # `is_held` takes a lock for a moment


class LockHeld(Exception):
    """Another process holds the lock."""


@contextmanager
def hold_lock(path: Path, *, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold a file's lock. Raises LockHeld if another process does for longer than `seconds`."""
    deadline = time.monotonic() + seconds
    with path.open("a") as file:
        while not _try_lock(file, exclusive=True):
            if time.monotonic() > deadline:
                raise LockHeld
            time.sleep(0.01)
        yield


def is_held(path: Path) -> bool:
    """Whether a process holds it. Any number of processes may ask at once."""
    try:
        with path.open() as file:
            return not _try_lock(file, exclusive=False)
    except FileNotFoundError:
        return False


def _try_lock(file: IO[str], *, exclusive: bool) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
