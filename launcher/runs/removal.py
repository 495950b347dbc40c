"""Runs removed for good: here, or from every host of their cluster."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from launcher.config.paths import launch_home
from launcher.errors import NotFound, RunBusy
from launcher.raycluster.control import runs_at_work
from launcher.raycluster.spec import cluster_folder
from launcher.runs.folder import RUN_NAME, RunFolder
from launcher.transport.connection import Connection
from launcher.transport.together import all_of, in_parallel, on_all

DU_SECONDS = 120.0


@dataclass(frozen=True)
class RunHere:
    """One of this machine, or what it has of a cluster's that no host knows any more.

    `name`: as commands take it; `bytes`: of disk; `stays_there`: its hosts may have it and are not
    asked.
    """

    name: str
    bytes: int
    folder: RunFolder
    stays_there: bool

    @classmethod
    def of(cls, folder: RunFolder, name: str, *, stays_there: bool = False) -> RunHere:
        """Raises RunBusy."""
        if folder.is_locked():
            raise RunBusy(f"run '{name}' is at work", fix=f"launch stop {name}")
        return cls(name, disk_bytes(folder.path), folder, stays_there)

    def remove(self) -> None:
        """Raises RunBusy."""
        if not self.folder.path.is_dir():  # a link that leads nowhere: no driver can hold it
            remove_folder(self.folder.path)
            return
        with self.folder.locked():  # no driver begins meanwhile
            remove_folder(self.folder.path)


@dataclass(frozen=True)
class RunThere:
    """One of a cluster, whose hosts all answer: one that kept a copy would bring the run back.

    `bytes`: of disk, on all hosts.
    """

    stays_there: ClassVar[bool] = False
    name: str
    bytes: int
    connections: Mapping[str, Connection]
    cluster: str
    run: str

    @classmethod
    def find(cls, connections: Mapping[str, Connection], cluster: str, run: str) -> RunThere:
        """Raises NotFound where no host has anything of it, RunBusy, HostError."""
        if not RUN_NAME.fullmatch(run):
            raise NotFound(f"no run is called '{run}'", fix="launch runs   lists them")
        path = _path(cluster, run)
        ask = f'! {_is_there(path)} || echo there "$(du -sk {path} 2>/dev/null)"'
        sizes = on_all(
            connections,
            lambda host: host.check(ask, step="size of the run", timeout=DU_SECONDS).split(),
        )
        if not any(sizes.values()):
            raise NotFound(
                f"no host of cluster {cluster} has run '{run}'", fix="launch runs   lists them"
            )
        kilobytes = sum(int(size[1]) for size in sizes.values() if len(size) > 1)
        found = cls(f"{cluster}/{run}", 1024 * kilobytes, connections, cluster, run)
        found._require_rest()
        return found

    def _require_rest(self) -> None:
        if self.run in runs_at_work(self.connections, self.cluster):
            raise RunBusy(f"run '{self.name}' is at work", fix=f"launch stop {self.name}")

    def remove(self) -> None:
        """Raises RunBusy; HostError or HostsFailed, with the hosts that have removed it."""
        self._require_rest()
        path = _path(self.cluster, self.run)
        removed = shlex.quote(f"{cluster_folder(self.cluster)}/runs/.removed-{self.run}")
        script = f"rm -rf {removed}; ! {_is_there(path)} || mv {path} {removed} && rm -rf {removed}"
        done, errors = in_parallel(
            self.connections, lambda host: host.check(script, step="remove the run")
        )
        if errors:
            error = all_of(errors)
            gone = f"removed already from {', '.join(done)}" if done else "no host has removed it"
            fix = f"launch runs remove {self.name}   once that is mended; {gone}"
            error.fix = f"{error.fix}\n{fix}" if error.fix else fix
            raise error
        mirror = launch_home() / "clusters" / self.cluster / "runs" / self.run
        if mirror.exists() or mirror.is_symlink():
            remove_folder(mirror)


Removable = RunHere | RunThere


def remove_folder(path: Path) -> None:
    """Under another name first: one that is cut off leaves nothing that looks like a run, and what
    it leaves goes with the next one. Of a link, what it leads to stays."""
    if path.is_symlink():
        path.unlink()
    else:
        _remove_real(path)
    for stray in path.parent.glob(".removed-*"):
        shutil.rmtree(stray, ignore_errors=True)


def _remove_real(path: Path) -> None:
    gone = path.with_name(f".removed-{path.name}-{secrets.token_hex(4)}")
    path.rename(gone)
    try:
        shutil.rmtree(gone)
    except FileNotFoundError:  # another removal sweeps it too
        shutil.rmtree(gone, ignore_errors=True)


def disk_bytes(path: Path) -> int:
    """Of all files below it, those that vanish meanwhile left out."""
    total = 0
    for file in path.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            status = file.lstat()
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


def _is_there(path: str) -> str:
    """A test in sh. Also of a link that leads nowhere."""
    return f"{{ [ -e {path} ] || [ -L {path} ]; }}"


def _path(cluster: str, run: str) -> str:
    return shlex.quote(f"{cluster_folder(cluster)}/runs/{run}")
