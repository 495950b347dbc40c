"""Idle Ray workers that have torch and Ray Train imported before a run asks for them.

Ray starts such workers once, for the first driver that it sees, and lets them go with it. So each
host's supervisor asks its raylet for new ones when a run has ended: an actor then begins in 0.4 s
instead of 4 s on one core. `python -P -m launcher.raycluster.warm HOST:PORT TOKEN_FILE COUNT`
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

NO_JOB = b"\xff" * 4  # of any job that comes
KEEP_SECONDS = 7 * 86_400
CHECK_SECONDS = 2.0
PATIENCE_SECONDS = 4.0  # until the workers that were asked for are processes
UNUSED = ("ray::IDLE", "default_worker.py")  # the second: still importing
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


class WarmPool:
    """Keeps `count` idle workers on a host that no run is using."""

    def __init__(
        self, raylet: str, token: Path, count: int, environment: Mapping[str, str]
    ) -> None:
        self._arguments = [raylet, str(token), str(count)]
        self._count = count
        self._environment = environment
        self._pid: int | None = None  # the raylet's
        self._next_check = 0.0

    def refill(self) -> None:
        """Cheap to call often. To be called once Ray is up."""
        now = time.monotonic()
        if now < self._next_check:
            return
        self._next_check = now + CHECK_SECONDS
        workers = self._workers()
        if all(name in UNUSED for name in workers) and len(workers) < self._count:
            # Not more than two of them start at a time: what is missing is asked for again.
            self._next_check = now + PATIENCE_SECONDS
            with contextlib.suppress(OSError):  # no process to be had now: the next time
                subprocess.Popen(
                    [sys.executable, "-P", "-m", __name__, *self._arguments],
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                )

    def _workers(self) -> list[str]:
        """Names of all worker processes of the raylet."""
        if self._pid is None:
            self._pid = _find_raylet()
        names, tasks = [], list[Path]()
        with contextlib.suppress(OSError):  # the raylet has ended: the supervisor sees to that
            tasks = list(Path(f"/proc/{self._pid}/task").glob("*/children"))
        for task in tasks:
            for pid in _text(task).split():
                command = _text(Path(f"/proc/{pid}/cmdline")).split("\0")
                if any(word.endswith("/default_worker.py") for word in command):
                    names.append("default_worker.py")
                elif command[0].startswith("ray::") and command[0] not in AGENTS:
                    names.append(command[0])
        return names


def _find_raylet() -> int | None:
    import psutil

    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # Ray starts short-lived ones
            if process.name() == "raylet":
                return process.pid
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has ended
        return ""


def prestart(raylet: str, token_file: str, count: str) -> None:
    """Ask a raylet for idle workers: an RPC that Ray 2.60.0 has and its Python does not use."""
    import grpc
    from ray.core.generated import common_pb2, node_manager_pb2, node_manager_pb2_grpc

    request = node_manager_pb2.PrestartWorkersRequest(
        language=common_pb2.Language.PYTHON,
        job_id=NO_JOB,
        keep_alive_duration_secs=KEEP_SECONDS,
        num_workers=int(count),
    )
    token = Path(token_file).read_text().strip()
    with grpc.insecure_channel(raylet) as channel:
        stub = node_manager_pb2_grpc.NodeManagerServiceStub(channel)
        stub.PrestartWorkers(request, metadata=(("authorization", f"Bearer {token}"),), timeout=30)


if __name__ == "__main__":
    prestart(*sys.argv[1:])
