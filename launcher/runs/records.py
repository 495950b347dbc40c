"""metrics.jsonl and events.jsonl: appended to by one process, followed by others."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class RecordWriter:
    """Appends one JSON object per line. A line torn by a crash is closed off, not continued."""

    def __init__(self, path: Path) -> None:
        torn = path.exists() and path.stat().st_size > 0 and path.read_bytes()[-1:] != b"\n"
        self._file = path.open("a", buffering=1)
        if torn:
            self._file.write("\n")

    def write(self, record: Record) -> None:
        self._file.write(json.dumps(record) + "\n")

    def event(self, kind: str, **details: Any) -> None:
        self.write({"time": round(time.time(), 3), "kind": kind, **details})


class RecordTail:
    """Reads what has been appended since the last look, whole lines only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[Record]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [record for line in whole.splitlines() if (record := _parse(line)) is not None]


def read_records(path: Path) -> list[Record]:
    return RecordTail(path).read()


def each_step_once(metrics: list[Record]) -> list[Record]:
    """One record a step, in order: the one of the highest attempt."""
    best: dict[int, Record] = {}
    for record in metrics:
        known = best.get(record["step"])
        if known is None or record["attempt"] >= known["attempt"]:
            best[record["step"]] = record
    return [best[step] for step in sorted(best)]


def _parse(line: bytes) -> Record | None:
    """None for a torn line: a crash in the middle of a write is no reason to read no further."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
