"""The runs of a cluster, through a connection to its head."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from launcher.config.paths import launch_home
from launcher.errors import HostError, InputError, KeyChanged, NotFound, RunBusy, Untrusted
from launcher.raycluster.control import JOBS_MODULE, active_runs, ask_host
from launcher.raycluster.observer import Notify
from launcher.raycluster.spec import ClusterSpec, cluster_folder
from launcher.remote.mirror import Mirror
from launcher.runs.folder import RUN_NAME, RunFolder, known_run_names, next_free_name
from launcher.runs.foreign_json import parse_json_object
from launcher.runs.spec import RunSpec, merge_changes, parse_spec
from launcher.ssh.df import df_free_bytes
from launcher.ssh.protocol import Connection
from nanochat.backoff import Backoff

# Without a new line for that long: is the driver alive? The answer costs the head 0.35 s of a core
# (its imports), so a run of slow steps is asked about ever more rarely.
STATUS_BACKOFF = Backoff(first_seconds=5.0, max_seconds=20.0)
BOOT_SECONDS = 120.0  # from sshd's first answer after a boot to the supervisor, on slow disks
RECONNECT_BACKOFF = Backoff(first_seconds=0.5, max_seconds=4.0)  # to a host that does not answer


class ClusterRuns:
    """Of one cluster. `connect` makes a connection to its head after a break; without it a break
    is the end."""

    def __init__(
        self,
        spec: ClusterSpec,
        head: Connection,
        connect: Callable[[], Connection] | None = None,
    ) -> None:
        self.spec = spec
        self.head = head
        self._connect = connect
        self._runs_folder = f"{cluster_folder(spec.cluster)}/runs"

    def reconnect(self) -> None:
        """Raises Unreachable and the like."""
        assert self._connect is not None
        self.head.close()
        self.head = self._connect()

    def names(self) -> list[str]:
        """Every run on the head."""
        return run_names(self.head, self.spec.cluster)

    def running(self) -> list[str]:
        """Names of the runs whose drivers are at work."""
        return active_runs({self.head.name: self.head}, self.spec.cluster)

    def find(self, name: str) -> RemoteRun:
        """Raises NotFound with the names there are."""
        run = RemoteRun(self, name)
        if RUN_NAME.fullmatch(name) and run.exists():
            return run
        recent = ", ".join(self.names()[-8:])
        raise NotFound(
            f"no run '{name}' on {self.spec.head.name}, the head of cluster {self.spec.cluster}",
            fix=f"name one of: {recent}" if recent else "launch recipe d4 starts one",
        )

    def create(
        self,
        name: str | None,
        recipe: str,
        spec: RunSpec,
        *,
        reserved: Collection[str] = (),
    ) -> RemoteRun:
        """A new run's folder on the head and its mirror here. Without a name: RECIPE-1, ...

        `reserved`: names of runs that the head no longer has, but other hosts have checkpoints of.
        Raises InputError for a name that is taken.
        """
        mirrors = launch_home() / "clusters" / self.spec.cluster / "runs"
        remote_names = self.names()
        if name is not None and name not in remote_names and RunFolder(mirrors / name).exists():
            raise InputError(
                f"run '{name}' of cluster {self.spec.cluster} is on this machine: {mirrors / name}",
                fix=f"choose another --name, or go on with it: "
                f"launch resume {self.spec.cluster}/{name}",
            )
        taken = {*remote_names, *reserved, *known_run_names(), *(p.name for p in mirrors.glob("*"))}
        while True:
            chosen = name or next_free_name(recipe, taken)
            if chosen not in reserved and self._make_folder(chosen):
                break
            taken.add(chosen)
            if name is not None:
                cluster = self.spec.cluster
                fix = f", or go on with it: launch resume {cluster}/{name}"
                raise InputError(
                    f"run '{name}' exists already on cluster {cluster}",
                    fix=f"choose another --name{'' if name in reserved else fix}",
                )
        run = RemoteRun(self, chosen)
        content = spec.with_changes(run=chosen).to_bytes()
        try:
            self.head.write(f"{run.path}/run.json", content)
        except HostError:  # a full disk: the name stays free
            self.head.run(f"rmdir {run.path}", step="give the name back")
            raise
        run.mirror.update(self.head)
        return run

    def _make_folder(self, name: str) -> bool:
        """False where it is there. Raises CommandFailed or DiskFull."""
        answer = self.head.check(
            f"mkdir -p {self._runs_folder} || exit 1\n"
            f"if mkdir {self._runs_folder}/{name}; then echo made; exit; fi\n"
            f"[ -e {self._runs_folder}/{name} ]",
            step="make the run's folder",
        )
        return answer.strip() == "made"


def run_names(host: Connection, cluster: str) -> list[str]:
    """Every run that a host has something of, the oldest first."""
    listing = host.run(f"ls -tr {cluster_folder(cluster)}/runs 2>/dev/null", step="list the runs")
    return [name for name in listing.stdout.splitlines() if RUN_NAME.fullmatch(name)]


class RemoteRun:
    """One run of a cluster. `folder`: its mirror on this machine."""

    poll_seconds = 0.3
    is_live = True

    def __init__(self, runs: ClusterRuns, name: str) -> None:
        self.runs = runs
        self.name = name
        self.cluster = runs.spec.cluster
        self.path = f"{cluster_folder(runs.spec.cluster)}/runs/{name}"
        self.folder = RunFolder(launch_home() / "clusters" / runs.spec.cluster / "runs" / name)
        self.mirror = Mirror(self.folder, self.path)
        self.notify: Notify = lambda message: None
        self._last_change_at = 0.0
        self._status_count = 0
        """How often its status was asked for since the last change or answer that it may boot."""
        self._alive = True
        self._failures = 0
        self._unsupervised_since: float | None = None
        """Since when it needs a driver and no supervisor is alive."""

    def exists(self) -> bool:
        try:
            self.runs.head.read(f"{self.path}/run.json")
        except FileNotFoundError:
            return False
        return True

    def submit(self) -> None:
        """Start its driver on the head. Raises RunBusy where it is running."""
        if not self._ask_jobs("submit")["submitted"]:
            raise RunBusy(
                f"run '{self.name}' is running",
                fix=f"launch logs {self.name} -f --cluster {self.runs.spec.cluster}",
            )
        self._alive, self._last_change_at, self._status_count = True, time.monotonic(), 0

    def update_spec(self, **changes: Any) -> None:
        """Change fields of run.json on the head, whose copy may be newer than the mirror's.

        Raises InputError if it is none, NotFound if it is gone.
        """
        file, address = f"{self.path}/run.json", f"{self.cluster}/{self.name}"
        try:
            content = parse_json_object(self.runs.head.read(file))
        except FileNotFoundError:
            raise NotFound(f"run '{address}' is gone: somebody has removed it") from None
        spec = parse_spec(content, f"{self.runs.head.name}: ~/{file}", address)
        assert content is not None
        self.runs.head.write(file, merge_changes(content, spec, changes))
        self.mirror.update(self.runs.head)

    def request_stop(self) -> None:
        """Ask for a checkpoint and an end after the current step."""
        self.runs.head.write(f"{self.path}/stop", b"")

    def free_bytes(self) -> int | None:
        """Free space on the head's disk; None if `df` does not say. Raises HostError."""
        output = self.runs.head.check(f"df -Pk {self.path}", step="free space")
        return df_free_bytes(output)

    def is_alive(self) -> bool:
        """Whether its driver is at work or about to be."""
        return bool(self._ask_jobs("status")["alive"])

    def is_restarted_by_supervisor(self) -> bool:
        """Whether the supervisor restarted its driver without a client, and it has not ended."""
        status = self._ask_jobs("status")
        return bool(status["alive"] and status["by_itself"])

    def refresh(self) -> bool:
        """Outlives breaks of the connection, for as long as they last; `notify` tells of them."""
        try:
            if self._failures:
                self.runs.reconnect()
                self.notify(f"connected to {self.runs.head.name} again")
                self._failures = 0
            return self.update()
        except (Untrusted, KeyChanged):
            raise
        except HostError as error:  # sshd lets nobody in for a while after a boot, and more
            if not self._failures:
                self.notify(
                    f"{error.message}; trying to reach it again: the run goes on, and where its "
                    "head was off, as soon as it is back"
                )
            self._failures += 1
            time.sleep(RECONNECT_BACKOFF.seconds(self._failures))
            return True

    def update(self) -> bool:
        """Bring the mirror up to date once. Raises ConnectionLost and the like."""
        now = time.monotonic()
        if now - self._last_change_at > STATUS_BACKOFF.seconds(self._status_count + 1):
            self._alive = self._is_alive_or_booting()
            self._last_change_at = now
            is_booting = self._unsupervised_since is not None
            self._status_count = 0 if is_booting else self._status_count + 1
        if self.mirror.update(self.runs.head):
            self._last_change_at = now
            self._status_count = 0
        if self.folder.summary() is not None:
            self._alive = False
        return self._alive

    def _is_alive_or_booting(self) -> bool:
        """A head that has just booted gets time for its supervisor, which starts the driver."""
        status = self._ask_jobs("status")
        if status["alive"] or not status["wanted"]:
            self._unsupervised_since = None
            return bool(status["alive"])
        if self._unsupervised_since is None:
            self._unsupervised_since = time.monotonic()
        return time.monotonic() - self._unsupervised_since < BOOT_SECONDS

    def _ask_jobs(self, verb: str) -> dict[str, Any]:
        folder = f"~/{cluster_folder(self.cluster)}"
        answer: dict[str, Any] = ask_host(
            self.runs.head, self.runs.spec, JOBS_MODULE, verb, folder, self.name
        )
        return answer
