"""The process on each host that starts Ray, starts it again when it dies, and ends it; on the head
it keeps runs going too (`run_restarter`).

`python -P -m launcher.agent.supervisor CLUSTER_FOLDER`. It works from cluster.json, holds the
folder's lock while it lives, tells what it does in state.json and supervisor.log, and is the
parent of every Ray process of its cluster on its host, so that it ends those and no others.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from launcher.agent.processes import (
    adopt_orphans,
    die_with_parent,
    kill_by_variable,
    kill_children,
)
from launcher.agent.run_restarter import RunRestarter
from launcher.agent.text_store import BLOBS
from launcher.agent.worker_pool import WorkerPool
from launcher.raycluster.boot_hook import start_file
from launcher.raycluster.environment import (
    CLUSTER_VARIABLE,
    FOREIGN_VARIABLES,
    GPU_VARIABLES,
    node_environment,
)
from launcher.raycluster.spec import CLIENT_SEEN_FILE, CODE_LABEL, ClusterSpec, short_name
from launcher.runs.folder import RunFolder
from launcher.runs.record import write_json
from nanochat.backoff import Backoff
from nanochat.lock import hold_lock

POLL_SECONDS = 0.2
RESTART_BACKOFF = Backoff(first_seconds=1.0, max_seconds=30.0)  # of a Ray that ends by itself
USE_CHECK_SECONDS = 5.0  # between looks at what uses Ray
HEAD_OFF_SECONDS = 7 * 86_400.0  # a head that has been off for longer is not waited for
CLIENT_SECONDS = 60.0  # a sign of a client counts for this long
HEALTHY_SECONDS = 60.0  # Ray that lived this long is started again at once
SOCKET_NAME_BYTES = 62  # "/session_2026-11-22_23-06-30_123456_1234567/sockets/plasma_store"
MAX_SOCKET_BYTES = 107  # of an AF_UNIX address
# Nothing but Ray's own messages goes through it; Ray would take 30% of the memory.
OBJECT_STORE_BYTES = 100 * 2**20
SPARE_WORKERS = 2  # on the head, beside one per slot: Ray Train and its controller


def main(folder: str) -> None:
    """Exits 0 when it is told to end (SIGTERM) or has been idle for long enough."""
    path = Path(folder).absolute()
    with hold_lock(path / "lock"):
        Supervisor(path).run()


class Supervisor:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder.parents[1]
        self.spec = ClusterSpec.from_bytes((folder / "cluster.json").read_bytes())
        self.ray_folder = ray_folder(self.home, self.spec.cluster)
        self.should_exit = self.is_idle = False
        self.starts = 0
        self.is_up = False
        self.last_used_at = self.last_checked_at = self.head_last_seen_at = time.monotonic()
        self.run_restarter = RunRestarter(folder) if self.spec.is_head else None

    def run(self) -> None:
        adopt_orphans()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # Left by a supervisor that was killed.
        kill_by_variable(f"{CLUSTER_VARIABLE}={self.folder}")
        if self.run_restarter:
            self.run_restarter.start()
        try:
            self._keep_ray_up()
        finally:
            kill_children()
        self._write_status("down")
        if self.is_idle:  # nobody has waited for it: nor does anybody when the host boots
            (self.home.parent / start_file(self.spec.cluster)).unlink(missing_ok=True)
        shutil.rmtree(self.ray_folder, ignore_errors=True)

    def _keep_ray_up(self) -> None:
        failures = 0
        while not (self.should_exit or self._is_idle()):
            shutil.rmtree(self.ray_folder, ignore_errors=True)  # sessions of earlier starts
            self.ray_folder.mkdir(parents=True)
            started_at = time.monotonic()
            self._watch_ray(self._start_ray())
            kill_children()
            if not self.should_exit:
                self._write_status("restarting")
                uptime = time.monotonic() - started_at
                failures = 1 if uptime > HEALTHY_SECONDS else failures + 1
                self._sleep(RESTART_BACKOFF.seconds(failures))

    def _start_ray(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        self._write_status("starting")
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "ray.scripts.scripts", *start_arguments(self.spec),
             f"--temp-dir={self.ray_folder}"],
            env=self._environment(), cwd=self.folder, stdin=subprocess.DEVNULL,
            preexec_fn=partial(die_with_parent, signal.SIGTERM),
        )  # fmt: skip

    def _environment(self) -> dict[str, str]:
        removed = (*FOREIGN_VARIABLES, *GPU_VARIABLES)
        inherited = {name: value for name, value in os.environ.items() if name not in removed}
        return inherited | node_environment(self.spec, self.home, self.ray_folder)

    def _watch_ray(self, ray: subprocess.Popen[bytes]) -> None:
        """Returns when Ray has ended, or when it should."""
        raylet = f"{self.spec.this_node.address}:{self.spec.ports.node_manager}"
        token = self.folder / "token"
        count, spares = idle_workers(self.spec), self.spec.this_node.ranks_per_node
        pool = WorkerPool(raylet, token, count, spares, self._environment())
        while not self.should_exit and ray.poll() is None:
            _reap_orphans(ray.pid)
            if not self.is_up and self._ray_answers():
                self._set_up(True)
                self._write_status("up")
            if self.is_up:
                pool.refill()
            if self._is_idle():
                print(f"no run for {self.spec.idle_minutes:g} minutes: ending", flush=True)
                self.should_exit = True
            time.sleep(POLL_SECONDS)
        self._set_up(False)

    def _set_up(self, up: bool) -> None:
        self.is_up = up
        if self.run_restarter:
            self.run_restarter.set_ray_state(up=up)

    def _ray_answers(self) -> bool:
        """Ray's processes of this host are there."""
        ports = self.spec.ports
        addresses = [(self.spec.this_node.address, ports.node_manager)]
        if self.spec.is_head:
            addresses.append(("127.0.0.1", ports.dashboard))
        for address in addresses:
            try:
                socket.create_connection(address, timeout=1).close()
            except OSError:
                return False
        return True

    def _is_idle(self) -> bool:
        """The head: no run for idle_minutes. The others: no head, or none that takes them."""
        now = time.monotonic()
        if not self.spec.idle_minutes or now - self.last_checked_at < USE_CHECK_SECONDS:
            return False
        self.last_checked_at = now
        if self._in_use():
            self.last_used_at = now
        self.is_idle = now - self.last_used_at > 60 * self.spec.idle_minutes
        return self.is_idle

    def _in_use(self) -> bool:
        if self.run_restarter:
            # A client is here, and maybe still sends the text of its run.
            recent = time.time() - CLIENT_SECONDS
            client_files = (self.folder / CLIENT_SEEN_FILE, *(self.home / BLOBS).glob("*.partial"))
            runs = (self.folder / "runs").glob("*/run.json")
            return (
                any(_modified_at(path) > recent for path in client_files)
                or any(RunFolder(path.parent).is_locked() for path in runs)
                or bool(self.run_restarter.unfinished_runs())
            )
        try:
            address = (self.spec.head.address, self.spec.ports.gcs)
            socket.create_connection(address, timeout=2).close()
        except ConnectionRefusedError:  # the head is there, its Ray has ended
            return False
        except OSError:  # it is off: once it is back its runs go on
            return time.monotonic() - self.head_last_seen_at < HEAD_OFF_SECONDS
        self.head_last_seen_at = time.monotonic()
        return self.is_up

    def _write_status(self, status: str) -> None:
        print(f"{time.strftime('%F %T')} {status}", flush=True)
        state: dict[str, Any] = {
            "status": status,
            "pid": os.getpid(),
            "time": round(time.time(), 3),
            "starts": self.starts,
            "key": self.spec.key,
        }
        write_json(self.folder / "state.json", state)

    def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.should_exit and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def _on_signal(self, *_: Any) -> None:
        self.should_exit = True


def _reap_orphans(ray: int) -> None:
    """What lost its parent below us and has ended, but for Ray's first process: Popen's own."""
    while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if ended.si_pid == ray:
            return
        os.waitpid(ended.si_pid, 0)


def _modified_at(path: Path) -> float:
    """Of the host's clock; 0 where there is no such file."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def ray_folder(home: Path, cluster: str) -> Path:
    """Ray's folder for a cluster on this host: under `home` where the names of sockets inside
    stay short enough, else under /tmp."""
    folder = home / "ray" / cluster
    if len(os.fsencode(folder)) + SOCKET_NAME_BYTES <= MAX_SOCKET_BYTES:
        return folder
    return Path(f"/tmp/launch-{os.getuid()}-{short_name(cluster)}")


def start_arguments(spec: ClusterSpec) -> list[str]:
    """Of `ray start` on the spec's node."""
    ports, node = spec.ports, spec.this_node
    if spec.is_head:
        role_arguments = [
            "--head",
            f"--port={ports.gcs}",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={ports.dashboard}",
            f"--ray-client-server-port={ports.ray_client}",  # cannot be left out
            "--no-monitor",  # the autoscaler's
        ]
    else:
        role_arguments = [f"--address={spec.head.address}:{ports.gcs}"]
    resources = f'{{"rank_slot": {node.ranks_per_node}, "pool_{node.pool}": {node.ranks_per_node}}}'
    return [
        "start",
        "--block",
        *role_arguments,
        f"--node-ip-address={node.address}",
        f"--node-name={node.name}",
        f"--node-manager-port={ports.node_manager}",
        f"--object-manager-port={ports.object_manager}",
        f"--dashboard-agent-grpc-port={ports.agent_grpc}",
        f"--dashboard-agent-listen-port={ports.agent_http}",
        f"--runtime-env-agent-port={ports.runtime_env_agent}",
        f"--metrics-export-port={ports.metrics}",
        f"--min-worker-port={ports.workers[0]}",
        f"--max-worker-port={ports.workers[-1]}",
        f"--num-cpus={idle_workers(spec)}",
        f"--num-gpus={node.ranks_per_node if node.accelerator != 'cpu' else 0}",
        f"--resources={resources}",
        f"--labels={CODE_LABEL}={spec.code}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        "--disable-usage-stats",
    ]


def idle_workers(spec: ClusterSpec) -> int:
    """How many worker processes a run uses on the spec's node. As many are kept ready; Ray starts
    no more than the CPUs that it is told of, so that is what it is told."""
    return spec.this_node.ranks_per_node + (SPARE_WORKERS if spec.is_head else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
