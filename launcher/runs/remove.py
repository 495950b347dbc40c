"""Remove a run of this machine for good, with its checkpoints."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import RunBusy
from launcher.runs.folder import RunFolder


@dataclass(frozen=True)
class LocalRemoval:
    """A run of this machine, or the mirror of a cluster's run that no host knows any more."""

    name: str
    """As commands take it."""
    bytes: int
    """Of disk."""
    folder: RunFolder
    stays_on_hosts: bool
    """Whether its cluster's hosts may still have it; they are not asked."""

    @classmethod
    def of(cls, folder: RunFolder, name: str, *, stays_on_hosts: bool = False) -> LocalRemoval:
        """Raises RunBusy."""
        if folder.is_locked():
            raise RunBusy(f"run '{name}' is at work", fix=f"launch stop {name}")
        return cls(name, disk_bytes(folder.path), folder, stays_on_hosts)

    def remove(self) -> None:
        """Raises RunBusy."""
        if not self.folder.path.is_dir():  # a link that leads nowhere: no driver can hold it
            remove_folder(self.folder.path)
            return
        with self.folder.locked():  # no driver begins meanwhile
            remove_folder(self.folder.path)


def remove_folder(path: Path) -> None:
    """Under another name first: one that is cut off leaves nothing that looks like a run, and what
    it leaves goes with the next one. Of a link, what it leads to stays."""
    if path.is_symlink():
        path.unlink()
    else:
        _remove_directory(path)
    for stray in path.parent.glob(".removed-*"):
        shutil.rmtree(stray, ignore_errors=True)


def _remove_directory(path: Path) -> None:
    renamed = path.with_name(f".removed-{path.name}-{secrets.token_hex(4)}")
    path.rename(renamed)
    try:
        shutil.rmtree(renamed)
    except FileNotFoundError:  # another removal sweeps it too
        shutil.rmtree(renamed, ignore_errors=True)


def disk_bytes(path: Path) -> int:
    """Of all files below it, those that vanish meanwhile left out."""
    total = 0
    for file in path.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            status = file.lstat()
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total
