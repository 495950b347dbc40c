"""Hashes of source files, remembered: a file of the same path, size and time is not read again."""

from __future__ import annotations

import json
from pathlib import Path

from nanochat.atomic_write import sha256_of, write_atomically


class FileHashes:
    """path -> [bytes, mtime_ns, sha256], kept in one JSON file; made anew where that is damaged."""

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
