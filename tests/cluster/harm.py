"""What befalls home machines, done for real to test hosts while a run trains on them, and undone.

    with FAULTS["cable-5"].strike(host, run) as at:   # the time at which it struck
        ...                                           # what has to be undone is undone at the end

For tests and for the benchmarks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from lab import Host
from pair import HostRun

WORKER, RAYLET = "ray::RayTrainWorker", "/raylet/raylet"
FIRST_EPHEMERAL = 32768
TARGET_SECONDS = 30.0  # for a worker or a checkpoint to be there
SAVE_SECONDS = 60.0  # for the next save to be tried

Harm = Callable[[Host, HostRun], Iterator[float]]


class NothingThere(Exception):
    """What was to be harmed is not there: nothing has been done."""


@dataclass(frozen=True)
class Fault:
    """`seconds`: until it is undone, where time is what it takes. `anywhere`: on any host; else on
    one that is not the head."""

    name: str
    what: str
    harm: Harm
    seconds: float = 0.0
    anywhere: bool = True

    def strike(self, host: Host, run: HostRun) -> AbstractContextManager[float]:
        """`run`: on that host. Gives the time at which it struck.

        Raises NothingThere where the host has no worker or checkpoint to harm.
        """
        return contextlib.contextmanager(self.harm)(host, run)

    def last(self, host: Host, run: HostRun) -> float:
        """Strike, and undo it when its time has come. Returns the time at which it struck."""
        with self.strike(host, run) as at:
            time.sleep(max(0.0, at + self.seconds - time.time()))
        return at


# --- processes


def kill_worker(host: Host, run: HostRun) -> Iterator[float]:
    pid = _one(host, WORKER)
    at = time.time()
    os.kill(pid, signal.SIGKILL)
    yield at


def kill_raylet(host: Host, run: HostRun) -> Iterator[float]:
    pid = _one(host, RAYLET)
    at = time.time()
    os.kill(pid, signal.SIGKILL)
    yield at


def freeze_worker(host: Host, run: HostRun) -> Iterator[float]:
    """Until the end; then it goes on, where it is still there."""
    worker = os.pidfd_open(_one(host, WORKER))  # another process may get its number
    try:
        at = time.time()
        signal.pidfd_send_signal(worker, signal.SIGSTOP)
        yield at
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(worker, signal.SIGCONT)
    finally:
        os.close(worker)


def freeze_worker_for_good(host: Host, run: HostRun) -> Iterator[float]:
    pid = _one(host, WORKER)
    at = time.time()
    os.kill(pid, signal.SIGSTOP)
    yield at


# --- power and network


def cut_power(host: Host, run: HostRun) -> Iterator[float]:
    """It boots at the end."""
    at = time.time()
    host.cut_power()
    try:
        yield at
    finally:
        host.boot()


def pull_cable(host: Host, run: HostRun) -> Iterator[float]:
    at = time.time()
    host.unplug()
    try:
        yield at
    finally:
        host.plug()


def silence_ranks(host: Host, run: HostRun) -> Iterator[float]:
    """What their connections (gloo's, ephemeral ports at both ends) carry is lost from now on;
    Ray's are well, and so are new ones: a collective without an end."""
    _one(host, WORKER)
    neighbours = {other.address for other in host.lab.hosts if other is not host}
    rules = []
    for line in host.inside("ss -tnH state established").splitlines():
        here, there = line.split()[2:4]
        address, _, port = there.rpartition(":")
        own_port = here.rpartition(":")[2]
        if address in neighbours and min(int(port), int(own_port)) >= FIRST_EPHEMERAL:
            rules.append(f"tcp sport {port} tcp dport {own_port} drop")
    if not rules:
        raise NothingThere(f"{host.name} has no connection of ranks")
    at = time.time()
    try:
        for rule in rules:
            host.firewall(rule)
        yield at
    finally:
        host.no_firewall()


# --- disks


def fill_disk(host: Host, run: HostRun) -> Iterator[float]:
    """The next save finds a disk with room enough, and the disk is full before it has ended."""
    newest = _newest(run)
    need = sum(file.stat().st_size for file in newest.iterdir())
    _wait(lambda: _newest(run) != newest, SAVE_SECONDS, "no save")  # none is at work now
    place = Path("home", host.home.name, run.path.relative_to(host.home), "checkpoints")
    folder = host.root / place
    host.small_disk(f"/{place}", need // 10**6 * 6 // 5 + 1)
    try:
        _wait(lambda: list(folder.glob(".partial-*")), SAVE_SECONDS, "no save")
        at = time.time()
        _fill(folder / "filler")
        _wait(lambda: not list(folder.glob(".partial-*")), SAVE_SECONDS, "the save does not end")
        if list(folder.glob("step-*")):
            raise NothingThere("the save was quicker than its disk was full")
        yield at
    finally:
        host.inside(f"umount -l /{place}")


def flip_bit(host: Host, run: HostRun) -> Iterator[float]:
    """In the newest checkpoint of the host, whose worker is then killed, so that it is read."""
    _one(host, WORKER)
    file = _newest(run) / "model.safetensors"
    with file.open("r+b") as data:
        data.seek(file.stat().st_size // 2)
        [byte] = data.read(1)
        data.seek(-1, os.SEEK_CUR)
        data.write(bytes([byte ^ 1]))
    yield from kill_worker(host, run)


def tear_checkpoint(host: Host, run: HostRun) -> Iterator[float]:
    """The newest one of the host lacks the end of a file, as after a power cut; then as above."""
    _one(host, WORKER)
    file = _newest(run) / "optimizer.safetensors"
    os.truncate(file, file.stat().st_size // 2)
    yield from kill_worker(host, run)


def remove_checkpoints(host: Host, run: HostRun) -> Iterator[float]:
    """All of the host; then as above."""
    _one(host, WORKER)
    _newest(run)
    shutil.rmtree(run.path / "checkpoints", ignore_errors=True)  # a save may be at work there
    yield from kill_worker(host, run)


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("kill", "a worker killed with -9", kill_worker),
        Fault("freeze", "a worker frozen (SIGSTOP)", freeze_worker_for_good),
        Fault("pause", "a worker frozen for 5 s", freeze_worker, seconds=5),
        Fault("endless", "an endless collective", silence_ranks, seconds=60),
        Fault("raylet", "a raylet killed with -9", kill_raylet, anywhere=False),
        Fault("power", "a host off, on after 5 s", cut_power, seconds=5, anywhere=False),
        Fault("cable-5", "a cable out for 5 s", pull_cable, seconds=5),
        Fault("cable-60", "a cable out for 60 s", pull_cable, seconds=60),
        Fault("full-disk", "a disk full during a save", fill_disk),
        Fault("bit", "a bit of the newest checkpoint flipped", flip_bit),
        Fault("torn", "the newest checkpoint torn", tear_checkpoint),
        Fault("removed", "a host's checkpoints gone", remove_checkpoints),
    )
}
HEAD_LOST = Fault("head", "the head off, on after 5 s", cut_power, seconds=5)


def _one(host: Host, program: str) -> int:
    """Id of the host's process of that name. A group that is being built has none yet."""
    _wait(lambda: host.pids(program), TARGET_SECONDS, f"{host.name} has no {program}")
    return host.pids(program)[-1]


def _newest(run: HostRun) -> Path:
    """Its newest checkpoint that is whole, by the look of it."""

    def whole() -> list[Path]:
        return sorted(path.parent for path in run.path.glob("checkpoints/step-*/manifest.json"))

    _wait(whole, TARGET_SECONDS, f"no checkpoint at {run.path}")
    return whole()[-1]


def _fill(file: Path) -> None:
    """Until nothing is left of its disk."""
    with file.open("wb", buffering=0) as data, contextlib.suppress(OSError):
        while data.write(bytes(2**20)):
            pass


def _wait(condition: Callable[[], object], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise NothingThere(otherwise)
        time.sleep(0.005)
