"""Atomic writes: a file is complete under its name, or absent, even after a power cut.

New content is written under a temporary name, flushed to the disk (fsync) and renamed; then the
folder that holds the name is flushed. Whole files go through `write_atomically`, streams through
`open_atomically`; a checkpoint's folder and a resumed download, which have temporary names of their
own, end with `replace_durably`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name, flush it to the disk, rename it to `path`."""
    with open_atomically(path) as file:
        file.write(data)


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears at `path` when the block ends and leaves nothing if it raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            yield file
        replace_durably(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace_durably(temporary: Path, path: Path) -> None:
    """Flush `temporary`, a file or a folder, and rename it to `path`, replacing a file there."""
    flush(temporary)
    temporary.replace(path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Bring a file, or the names inside a folder, to the disk: they last through a power cut.

    On Windows files only: folders cannot be flushed there.
    """
    if sys.platform == "win32":
        if path.is_file():
            with path.open("rb+") as file:  # one that is open for reading only cannot be flushed
                os.fsync(file.fileno())
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
