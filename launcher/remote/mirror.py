"""The files of a cluster's run, brought to this machine as they grow.

The head's folder is the record; the mirror has the same files but for checkpoints. What is
appended there is appended here, from the byte on that this machine has: after any break, from any
number of clients, nothing is missed and nothing comes twice.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from launcher.runs.folder import RunFolder
from launcher.runs.foreign_json import parse_json_object
from launcher.ssh.protocol import Connection
from nanochat.atomic_write import write_atomically
from nanochat.lock import LockHeld, hold_lock

APPENDED_FILES = ("events.jsonl", "metrics.jsonl", "log.txt")
OVERLAP_BYTES = 256  # more than a line's time and step: two different ends never look alike
REPLACED_FILES = ("run.json", "stop", "failure.json", "measured.json", "summary.json")


class Mirror:
    """`folder` here, `path` on the head."""

    def __init__(self, folder: RunFolder, path: str) -> None:
        self.folder = folder
        self._path = path

    def update(self, head: Connection) -> bool:
        """Bring what is new; True where anything was. The summary comes last: what it sums up is
        here then. Where the head has no such run, what is here stays."""
        try:
            remote = parse_json_object(head.read(f"{self._path}/run.json"))
        except FileNotFoundError:
            return False
        if remote is None:
            return False
        self._set_aside_other_run(remote.get("created"))
        self.folder.path.mkdir(parents=True, exist_ok=True)
        try:
            with hold_lock(self.folder.path / "mirror.lock"):
                appended = [self._append(head, name) for name in APPENDED_FILES]
                changed = [self._replace(head, name) for name in REPLACED_FILES]
        except LockHeld:  # another command of this user is bringing it
            return False
        return any(appended + changed)

    def _set_aside_other_run(self, created: object) -> None:
        """Keep an earlier run of the same name, which the hosts have forgotten, under another."""
        local = self.folder.created()
        if local is not None and isinstance(created, int | float) and local != created:
            names = (f"{self.folder.name}.{int(local) + extra}" for extra in itertools.count())
            others = (self.folder.path.with_name(name) for name in names)
            self.folder.path.rename(next(path for path in others if not path.exists()))

    def _append(self, head: Connection, name: str) -> bool:
        """What is here is the beginning of what is there, unless the head has lost power and with
        it what had not reached its disk: then all of it is brought again."""
        local = self.folder.path / name
        size = local.stat().st_size if local.exists() else 0
        overlap = min(size, OVERLAP_BYTES)
        try:
            data = head.read(f"{self._path}/{name}", size - overlap)
            if overlap and data[:overlap] != _read_end(local, overlap):
                return self._replace(head, name)
        except FileNotFoundError:
            return False
        if new := data[overlap:]:
            with local.open("ab") as file:
                file.write(new)
        return bool(new)

    def _replace(self, head: Connection, name: str) -> bool:
        local = self.folder.path / name
        old_content = local.read_bytes() if local.exists() else None
        try:
            content = head.read(f"{self._path}/{name}")
        except FileNotFoundError:
            local.unlink(missing_ok=True)
            return old_content is not None
        if content != old_content:
            write_atomically(local, content)
        return content != old_content


def _read_end(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(-size, os.SEEK_END)
        return file.read()
