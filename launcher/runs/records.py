"""metrics.jsonl and events.jsonl: appended to by one process, followed by others."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class RecordWriter:
    """Appends one JSON object per line. A line torn by a crash is closed off, not continued."""

    def __init__(self, path: Path) -> None:
        torn = path.exists() and not _ends_whole(path)
        self._file = path.open("a", buffering=1)
        if torn:
            self._file.write("\n")

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, record: Record) -> None:
        self._file.write(json.dumps(record) + "\n")

    def event(self, kind: str, **details: Any) -> None:
        self.write({"time": round(time.time(), 3), "kind": kind, **details})


class RecordTail:
    """Reads what has been appended since the last look, whole lines only; all of it again where
    another file stands there (a mirror whose head had lost the end of its own)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = 0
        self._offset = 0

    def read(self) -> list[Record]:
        try:
            with self._path.open("rb") as file:
                if (inode := os.fstat(file.fileno()).st_ino) != self._inode:
                    self._inode, self._offset = inode, 0
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [record for line in whole.splitlines() if (record := _parse(line)) is not None]


def read_records(path: Path) -> list[Record]:
    return RecordTail(path).read()


def last_records(path: Path, most_bytes: int) -> list[Record]:
    """Those in the last `most_bytes` of a file: a long run's are many."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most_bytes))
            data = file.read()
    except FileNotFoundError:
        return []
    if size > most_bytes:
        data = data[data.find(b"\n") + 1 :]
    return [record for line in data.splitlines() if (record := _parse(line)) is not None]


def latest_attempts(metrics: list[Record]) -> list[Record]:
    """One record a step, in order: the one of the highest attempt.

    Steps beyond the last line were lost with an earlier attempt and have not been made again.
    """
    best: dict[int, Record] = {}
    reached = metrics[-1]["step"] if metrics else 0
    for record in metrics:
        known = best.get(record["step"])
        if known is None or record["attempt"] >= known["attempt"]:
            best[record["step"]] = record
    return [best[step] for step in sorted(best) if step <= reached]


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _parse(line: bytes) -> Record | None:
    """None for a torn line: a crash in the middle of a write is no reason to read no further."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
