"""SHA-256 of files, computed or remembered."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from nanochat.atomic_write import write_atomically


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FileHashes:
    """A cache of hashes: a file of the same path, size and time is not read again.

    path -> [bytes, mtime_ns, sha256], kept in one JSON file; started afresh if that is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = False
        try:
            self._known: dict[str, list[int | str]] = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            self._known = {}

    def sha256(self, path: Path) -> str:
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        known = self._known.get(str(path.absolute()))
        if known is not None and known[:2] == stamp:
            return str(known[2])
        digest = sha256_of(path)
        self._known[str(path.absolute())] = [*stamp, digest]
        self._changed = True
        return digest

    def save(self) -> None:
        if self._changed:
            write_atomically(self._path, json.dumps(self._known).encode())
            self._changed = False
