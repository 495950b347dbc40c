"""Idle Ray workers that have torch and Ray Train imported before a run asks for them.

Ray starts such workers once, for the first driver that it sees, and lets them go with it. So each
host's supervisor asks its raylet for new ones when a run has ended: an actor then begins in 0.4 s
instead of 4 s on one core. And while a run goes on it keeps one per slot for the rank that comes
after a fault: 240 MB of memory each that nobody shares, imported with a tenth of the core
(`launcher.training.worker_preload`).

`python -P -m launcher.agent.worker_pool HOST:PORT TOKEN_FILE COUNT` asks a raylet for idle workers.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ANY_JOB_ID = b"\xff" * 4  # of any job that comes
KEEP_ALIVE_SECONDS = 7 * 86_400
CHECK_SECONDS = 2.0
START_SECONDS = 4.0  # until the workers that were asked for are processes
# A process that nothing uses yet is not worth the memory of a host that has little left.
MIN_AVAILABLE_BYTES = 2**30
SETTLE_SECONDS = 10.0  # what has just begun, Ray or a run, has the core to itself
IDLE_NAMES = ("ray::IDLE", "default_worker.py")  # the second: still importing
AGENT_NAMES = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


class WorkerPool:
    """Keeps `count` idle workers on a host that no run is using, and always `spares` more."""

    def __init__(
        self, raylet: str, token: Path, count: int, spares: int, environment: Mapping[str, str]
    ) -> None:
        self._arguments = [raylet, str(token)]
        self._count = count
        self._spares = spares
        self._environment = environment
        self._raylet_pid: int | None = None
        self._next_check = 0.0
        self._prestart: subprocess.Popen[bytes] | None = None
        self._in_use: frozenset[int] = frozenset()
        self._settled_at = time.monotonic() + SETTLE_SECONDS

    def refill(self) -> None:
        """Cheap to call often. To be called once Ray is up."""
        now = time.monotonic()
        if now < self._next_check:
            return
        self._next_check = now + CHECK_SECONDS
        if self._prestart is not None and self._prestart.poll() is None:
            return  # on a host that is busy with its boot several of these took each other's core
        workers = self._worker_names()
        in_use = frozenset(pid for pid, name in workers.items() if name not in IDLE_NAMES)
        if in_use != self._in_use:
            self._in_use, self._settled_at = in_use, now + SETTLE_SECONDS
        target = 0 if in_use else self._count
        if now > self._settled_at and _available_bytes() > MIN_AVAILABLE_BYTES:
            target += self._spares
        missing = target - (len(workers) - len(in_use))
        if missing > 0:
            # Not more than two of them start at a time: what is missing is asked for again.
            self._next_check = now + START_SECONDS
            with contextlib.suppress(OSError):  # no process to be had now: the next time
                self._prestart = subprocess.Popen(
                    [sys.executable, "-P", "-m", __name__, *self._arguments, str(missing)],
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                )

    def _worker_names(self) -> dict[int, str]:
        """Names of all worker processes of the raylet, by id."""
        if self._raylet_pid is None:
            self._raylet_pid = _find_raylet()
        names, tasks = dict[int, str](), list[Path]()
        with contextlib.suppress(OSError):  # the raylet has ended: the supervisor sees to that
            tasks = list(Path(f"/proc/{self._raylet_pid}/task").glob("*/children"))
        for task in tasks:
            for pid in _read_text(task).split():
                command = _read_text(Path(f"/proc/{pid}/cmdline")).split("\0")
                if any(argument.endswith("/default_worker.py") for argument in command):
                    names[int(pid)] = "default_worker.py"
                elif command[0].startswith("ray::") and command[0] not in AGENT_NAMES:
                    names[int(pid)] = command[0]
        return names


def _find_raylet() -> int | None:
    import psutil

    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # Ray starts short-lived ones
            if process.name() == "raylet":
                return process.pid
    return None


def _available_bytes() -> int:
    """0 where the system does not say."""
    fields = dict(line.split(":") for line in _read_text(Path("/proc/meminfo")).splitlines())
    return 1024 * int(fields.get("MemAvailable", "0").split()[0])


def _read_text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has ended
        return ""


def prestart_workers(raylet: str, token_file: str, count: str) -> None:
    """Ask a raylet for idle workers: an RPC that Ray 2.60.0 has and its Python does not use."""
    import grpc
    from ray.core.generated import common_pb2, node_manager_pb2, node_manager_pb2_grpc

    request = node_manager_pb2.PrestartWorkersRequest(
        language=common_pb2.Language.PYTHON,
        job_id=ANY_JOB_ID,
        keep_alive_duration_secs=KEEP_ALIVE_SECONDS,
        num_workers=int(count),
    )
    token = Path(token_file).read_text().strip()
    with grpc.insecure_channel(raylet) as channel:
        stub = node_manager_pb2_grpc.NodeManagerServiceStub(channel)
        stub.PrestartWorkers(request, metadata=(("authorization", f"Bearer {token}"),), timeout=30)


if __name__ == "__main__":
    prestart_workers(*sys.argv[1:])
