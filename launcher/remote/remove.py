"""Remove a run from every host of its cluster, with its checkpoints."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from launcher.config.paths import launch_home
from launcher.errors import NotFound, RunBusy
from launcher.raycluster.control import active_runs
from launcher.raycluster.spec import cluster_folder
from launcher.runs.folder import RUN_NAME
from launcher.runs.remove import LocalRemoval, remove_folder
from launcher.ssh.parallel import call_on_all, combine_errors, in_parallel
from launcher.ssh.protocol import Connection

DU_SECONDS = 120.0


@dataclass(frozen=True)
class RemoteRemoval:
    """One of a cluster, whose hosts all answer: one that kept a copy would bring the run back.

    `bytes`: of disk, on all hosts.
    """

    stays_on_hosts: ClassVar[bool] = False
    name: str
    bytes: int
    connections: Mapping[str, Connection]
    cluster: str
    run: str

    @classmethod
    def find(cls, connections: Mapping[str, Connection], cluster: str, run: str) -> RemoteRemoval:
        """Raises NotFound where no host has anything of it, RunBusy, HostError."""
        if not RUN_NAME.fullmatch(run):
            raise NotFound(f"no run is called '{run}'", fix="launch runs   lists them")
        path = _path(cluster, run)
        command = f'! {_exists_test(path)} || echo there "$(du -sk {path} 2>/dev/null)"'

        def read_size(host: Connection) -> list[str]:
            return host.check(command, step="size of the run", timeout=DU_SECONDS).split()

        sizes = call_on_all(connections, read_size)
        if not any(sizes.values()):
            raise NotFound(
                f"no host of cluster {cluster} has run '{run}'", fix="launch runs   lists them"
            )
        kilobytes = sum(int(size[1]) for size in sizes.values() if len(size) > 1)
        removal = cls(f"{cluster}/{run}", 1024 * kilobytes, connections, cluster, run)
        removal._require_inactive()
        return removal

    def _require_inactive(self) -> None:
        if self.run in active_runs(self.connections, self.cluster):
            raise RunBusy(f"run '{self.name}' is at work", fix=f"launch stop {self.name}")

    def remove(self) -> None:
        """Raises RunBusy; HostError or HostsFailed, with the hosts that have removed it."""
        self._require_inactive()
        path = _path(self.cluster, self.run)
        trash = shlex.quote(f"{cluster_folder(self.cluster)}/runs/.removed-{self.run}")
        script = f"rm -rf {trash}; ! {_exists_test(path)} || mv {path} {trash} && rm -rf {trash}"
        done, errors = in_parallel(
            self.connections, lambda host: host.check(script, step="remove the run")
        )
        if errors:
            error = combine_errors(errors)
            outcome = (
                f"removed already from {', '.join(done)}" if done else "no host has removed it"
            )
            fix = f"launch runs remove {self.name}   once that is mended; {outcome}"
            error.fix = f"{error.fix}\n{fix}" if error.fix else fix
            raise error
        mirror = launch_home() / "clusters" / self.cluster / "runs" / self.run
        if mirror.exists() or mirror.is_symlink():
            remove_folder(mirror)


RunRemoval = LocalRemoval | RemoteRemoval


def _exists_test(path: str) -> str:
    """A test in sh. Also of a link that leads nowhere."""
    return f"{{ [ -e {path} ] || [ -L {path} ]; }}"


def _path(cluster: str, run: str) -> str:
    return shlex.quote(f"{cluster_folder(cluster)}/runs/{run}")
