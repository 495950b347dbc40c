"""The runs of a cluster, through a connection to its head."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from launcher.config.paths import launch_home
from launcher.errors import HostError, InputError, KeyChanged, NotFound, RunBusy, Untrusted
from launcher.raycluster.control import JOBS, active_runs, ask_host
from launcher.raycluster.spec import ClusterSpec, cluster_folder
from launcher.remote.mirror import Mirror
from launcher.runs.folder import RUN_NAME, RunFolder, first_free, known_names
from launcher.runs.spec import RunSpec
from launcher.ssh.df import df_free_bytes
from launcher.ssh.protocol import Connection
from nanochat.backoff import Backoff

QUIET_SECONDS = 5.0  # without a new line: is the driver alive?
BOOT_SECONDS = 120.0  # from sshd's first answer after a boot to the supervisor, on slow disks
RECONNECT = Backoff(first_seconds=0.5, max_seconds=4.0)  # to a host that does not answer


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
        self._root = f"{cluster_folder(spec.cluster)}/runs"

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
        if RUN_NAME.fullmatch(name) and run.is_there():
            return run
        names = ", ".join(self.names()[-8:])
        raise NotFound(
            f"no run '{name}' on {self.spec.head.name}, the head of cluster {self.spec.cluster}",
            fix=f"name one of: {names}" if names else "launch recipe d4 starts one",
        )

    def create(
        self,
        name: str | None,
        recipe: str,
        spec: RunSpec,
        *,
        elsewhere: Collection[str] = (),
    ) -> RemoteRun:
        """A new run's folder on the head and its mirror here. Without a name: RECIPE-1, ...

        `elsewhere`: runs that other hosts have checkpoints of and the head nothing any more.
        Raises InputError for a name that is taken.
        """
        mirrors = launch_home() / "clusters" / self.spec.cluster / "runs"
        there = self.names()
        if name is not None and RunFolder(mirrors / name).find_spec() and name not in there:
            raise InputError(
                f"run '{name}' of cluster {self.spec.cluster} is on this machine: {mirrors / name}",
                fix=f"choose another --name, or go on with it: "
                f"launch resume {self.spec.cluster}/{name}",
            )
        taken = {*there, *elsewhere, *known_names(), *(p.name for p in mirrors.glob("*"))}
        while True:
            chosen = name or first_free(recipe, taken)
            if chosen not in elsewhere and self._make_folder(chosen):
                break
            taken.add(chosen)
            if name is not None:
                cluster = self.spec.cluster
                fix = f", or go on with it: launch resume {cluster}/{name}"
                raise InputError(
                    f"run '{name}' exists already on cluster {cluster}",
                    fix=f"choose another --name{'' if name in elsewhere else fix}",
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
            f"mkdir -p {self._root} || exit 1\n"
            f"if mkdir {self._root}/{name}; then echo made; exit; fi\n"
            f"[ -e {self._root}/{name} ]",
            step="make the run's folder",
        )
        return answer.strip() == "made"


def run_names(host: Connection, cluster: str) -> list[str]:
    """Every run that a host has something of, the oldest first."""
    listed = host.run(f"ls -tr {cluster_folder(cluster)}/runs 2>/dev/null", step="list the runs")
    return [name for name in listed.stdout.splitlines() if RUN_NAME.fullmatch(name)]


class RemoteRun:
    """One run of a cluster. `folder`: its mirror on this machine."""

    poll_seconds = 0.3
    is_asked = True

    def __init__(self, runs: ClusterRuns, name: str) -> None:
        self.runs = runs
        self.name = name
        self.cluster = runs.spec.cluster
        self.path = f"{cluster_folder(runs.spec.cluster)}/runs/{name}"
        self.folder = RunFolder(launch_home() / "clusters" / runs.spec.cluster / "runs" / name)
        self.mirror = Mirror(self.folder, self.path)
        self.say: Callable[[str], None] = lambda text: None
        self._news_at = 0.0
        self._alive = True
        self._failures = 0
        self._unkept_since: float | None = None  # it is wanted, and no supervisor keeps it

    def is_there(self) -> bool:
        try:
            self.runs.head.read(f"{self.path}/run.json")
        except FileNotFoundError:
            return False
        return True

    def submit(self) -> None:
        """Start its driver on the head. Raises RunBusy where it is running."""
        if not self._ask("submit")["submitted"]:
            raise RunBusy(
                f"run '{self.name}' is running",
                fix=f"launch logs {self.name} -f --cluster {self.runs.spec.cluster}",
            )
        self._alive, self._news_at = True, time.monotonic()

    def write_spec(self, spec: RunSpec) -> None:
        """Replace run.json on the head and here."""
        self.runs.head.write(f"{self.path}/run.json", spec.to_bytes())
        self.mirror.update(self.runs.head)

    def request_stop(self) -> None:
        """Ask for a checkpoint and an end after the current step."""
        self.runs.head.write(f"{self.path}/stop", b"")

    def free_bytes(self) -> int:
        """Room on the head's disk. Raises HostError."""
        output = self.runs.head.check(f"df -Pk {self.path}", step="free space")
        return df_free_bytes(output) or 0

    def is_alive(self) -> bool:
        """Whether its driver is at work or about to be."""
        return bool(self._ask("status")["alive"])

    def goes_on_by_itself(self) -> bool:
        """Whether it has been started again without a client, and not ended since."""
        status = self._ask("status")
        return bool(status["alive"] and status["by_itself"])

    def refresh(self) -> bool:
        """Outlives breaks of the connection, for as long as they last; `say` tells of them."""
        try:
            if self._failures:
                self.runs.reconnect()
                self.say(f"connected to {self.runs.head.name} again")
                self._failures = 0
            return self.update()
        except (Untrusted, KeyChanged):
            raise
        except HostError as error:  # sshd lets nobody in for a while after a boot, and more
            if not self._failures:
                self.say(
                    f"{error.message}; trying to reach it again: the run goes on, and where its "
                    "head was off, as soon as it is back"
                )
            self._failures += 1
            time.sleep(RECONNECT.seconds(self._failures))
            return True

    def update(self) -> bool:
        """Bring the mirror up to date once. Raises ConnectionLost and the like."""
        now = time.monotonic()
        if now - self._news_at > QUIET_SECONDS:
            self._alive = self._will_go_on()
            self._news_at = now
        if self.mirror.update(self.runs.head):
            self._news_at = now
        if self.folder.summary() is not None:
            self._alive = False
        return self._alive

    def _will_go_on(self) -> bool:
        """A head that has just booted gets time for its supervisor, which starts what is wanted."""
        status = self._ask("status")
        if status["alive"] or not status["wanted"]:
            self._unkept_since = None
            return bool(status["alive"])
        if self._unkept_since is None:
            self._unkept_since = time.monotonic()
        return time.monotonic() - self._unkept_since < BOOT_SECONDS

    def _ask(self, verb: str) -> dict[str, Any]:
        folder = f"~/{cluster_folder(self.cluster)}"
        answer: dict[str, Any] = ask_host(
            self.runs.head, self.runs.spec, JOBS, verb, folder, self.name
        )
        return answer
