"""Data that is still being prepared: what of it is ready, a line per block.

    train.jsonl    {"block": {...}} for each block on the disk; {"unit": {...}} where a unit of the
                   text ends, with the counts up to there: an interrupted preparation goes on there
    failure.json   why the last preparation ended early

The manifest says `complete: false` meanwhile, and has the validation rows already.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nanochat.atomic_write import write_atomically
from nanochat.dataset.manifest import RowBlock
from nanochat.errors import DataError

LOG_FILE = "train.jsonl"
FAILURE_FILE = "failure.json"


@dataclass(frozen=True)
class Counts:
    """Of the text so far: `ids` are ordinary tokens, `tokens` those of all pieces with the BOS of
    each."""

    documents: int = 0
    bytes: int = 0
    ids: int = 0
    tokens: int = 0


class BlockLog:
    """Written by the one process that holds the folder's lock."""

    def __init__(self, folder: Path, on_block: Callable[[], None]) -> None:
        """Resume the log of an earlier process, if any. `on_block`: called if that has blocks, and
        after every new one."""
        (folder / FAILURE_FILE).unlink(missing_ok=True)
        self._on_block = on_block
        self._path = folder / LOG_FILE
        if self._path.exists():  # a line that a crash has torn counts as not written
            os.truncate(self._path, self._path.read_bytes().rfind(b"\n") + 1)
        self._recorded: list[RowBlock] = []
        self.blocks: list[RowBlock] = []  # of whole units
        self.units, self.counts = 0, Counts()
        for block, counts in _read_lines(self._path):
            if block is not None:
                self._recorded.append(block)
            elif counts is not None:
                self.blocks = list(self._recorded)
                self.units, self.counts = self.units + 1, counts
        self._next = len(self.blocks)
        if self._recorded:
            on_block()

    def match_recorded(self, block: RowBlock) -> bool:
        """Whether an interrupted preparation recorded this block, the next one; then pass over it.

        Raises DataError if it recorded another block, because then the text has changed.
        """
        if self._next >= len(self._recorded):
            return False
        if self._recorded[self._next] != block:
            raise self._changed_error(block.name)
        self._next += 1
        return True

    def append(self, block: RowBlock) -> None:
        """Record a block whose file is on the disk."""
        self._write({"block": asdict(block)})
        self._recorded.append(block)
        self._next += 1
        self._on_block()

    def end_unit(self, counts: Counts) -> None:
        """Record the end of a unit. Raises DataError if an earlier process recorded more of it."""
        if self._next < len(self._recorded):
            raise self._changed_error(self._recorded[self._next].name)
        self._write({"unit": asdict(counts)})

    def _changed_error(self, name: str) -> DataError:
        return DataError(
            f"{self._path.parent / name}: other rows than when this text was prepared before: the "
            "text has changed meanwhile",
            fix=f"delete the folder {self._path.parent}: the data will be prepared again",
        )

    def _write(self, line: dict[str, Any]) -> None:
        with self._path.open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def ready_blocks(folder: Path) -> list[RowBlock]:
    """Blocks to train on that are on the disk, in order. Raises DataError for a damaged record."""
    return [block for block, _ in _read_lines(folder / LOG_FILE) if block is not None]


def truncate_at(folder: Path, name: str) -> None:
    """Truncate the log before the unit that has the block `name`, whose file is damaged."""
    path = folder / LOG_FILE
    data = path.read_bytes()
    whole = end = 0
    for line in data.splitlines(keepends=True):
        end += len(line)
        block, counts = _parse_line(path, line)
        if block is not None and block.name == name:
            break
        whole = end if counts is not None else whole
    os.truncate(path, whole)


def write_failure(folder: Path, error: DataError) -> None:
    content = json.dumps({"message": error.message, "fix": error.fix}).encode()
    with contextlib.suppress(OSError):  # the disk may be what failed
        write_atomically(folder / FAILURE_FILE, content)


def read_failure(folder: Path) -> DataError | None:
    try:
        content = json.loads((folder / FAILURE_FILE).read_bytes())
        return DataError(content["message"], fix=content["fix"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def damaged_error(file: Path, what: str) -> DataError:
    return DataError(
        f"{file}: damaged: {what}",
        fix=f"delete the folder {file.parent}: the data will be prepared again",
    )


def _read_lines(path: Path) -> list[tuple[RowBlock | None, Counts | None]]:
    """Whole lines only: another process may be writing the last one."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    return [_parse_line(path, line) for line in data[: data.rfind(b"\n") + 1].splitlines()]


def _parse_line(path: Path, line: bytes) -> tuple[RowBlock | None, Counts | None]:
    """A block, or the counts at the end of a unit."""
    try:
        content = json.loads(line)
        if "block" in content:
            return RowBlock(**content["block"]), None
        return None, Counts(**content["unit"])
    except (ValueError, KeyError, TypeError) as error:
        raise damaged_error(path, f"not a line of it: {line[:40]!r}") from error
