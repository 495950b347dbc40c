"""Files of one JSON object per line: one process appends, others follow."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.runs.foreign_json import parse_json_object


class JsonLinesWriter:
    """Appends lines. A line torn by a crash is closed off, not continued."""

    def __init__(self, path: Path) -> None:
        torn = path.exists() and not _ends_with_newline(path)
        self._file = path.open("a", buffering=1)
        if torn:
            self._file.write("\n")

    def __enter__(self) -> JsonLinesWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, content: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(content) + "\n")


class JsonLinesTail:
    """Reads what has been appended since the last call, complete lines only.

    If another file has taken the path (a mirror whose head had lost the end of its own), all of it
    is read again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = 0
        self._offset = 0

    def read(self) -> list[dict[str, Any]]:
        try:
            with self._path.open("rb") as file:
                if (inode := os.fstat(file.fileno()).st_ino) != self._inode:
                    self._inode, self._offset = inode, 0
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        return _parse_lines(complete)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read all complete lines. Empty if there is no such file."""
    return JsonLinesTail(path).read()


def read_last_json_lines(path: Path, max_bytes: int) -> list[dict[str, Any]]:
    """Read the lines within the last `max_bytes` of a file: a long run has many."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - max_bytes))
            data = file.read()
    except FileNotFoundError:
        return []
    if size > max_bytes:
        data = data[data.find(b"\n") + 1 :]
    return _parse_lines(data)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _parse_lines(data: bytes) -> list[dict[str, Any]]:
    """Skip torn lines: a crash in the middle of a write is no reason to read no further."""
    contents = []
    for line in data.splitlines():
        if (content := parse_json_object(line)) is not None:
            contents.append(content)
    return contents
