"""Run the operations of all hosts at once, each host at its own pace."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby

from launcher.errors import CommandFailed, DiskFull, HostError
from launcher.formatting import format_bytes
from launcher.hosts.platform import Platform
from launcher.provision.client_lock import client_lock, unlock
from launcher.provision.host_plan import ROOT, HostPlan, Operation, RunCommand, SendFile, WriteFile
from launcher.provision.lockfile import Wheel
from launcher.provision.wheels import fetch_wheels, unpacked_bytes
from launcher.ssh.parallel import combine_errors, in_parallel
from launcher.ssh.protocol import Connection
from nanochat.progress import Progress, no_progress

FILES_AT_ONCE = 3  # per host: small wheels would else wait for each other's round trips
STREAMS_AT_ONCE = 12  # of all hosts: each holds a block in memory, and a disk seeks between files
PYTHON_UNPACKED_RATIO = 4.0  # times its archive's bytes: 4.0 for the 30 MB of CPython 3.12's
DISK_RESERVE_BYTES = 100_000_000  # logs, the code, Ray's start

_streams = threading.BoundedSemaphore(STREAMS_AT_ONCE)


@dataclass
class ApplyResult:
    """What was done on one host: seconds by stage (python, push, install, code), bytes sent."""

    seconds: dict[str, float] = field(default_factory=dict)
    sent_bytes: int = 0


def apply_plans(
    connections: Mapping[str, Connection],
    plans: Mapping[str, HostPlan],
    *,
    progress: Progress = no_progress,
) -> dict[str, ApplyResult]:
    """Run every plan, all hosts at once. A failing host does not block the others.

    `fetch_all_wheels` comes before. Raises HostError, or HostsFailed for several.
    """
    busy = {name: plan for name, plan in plans.items() if plan.operations}
    try:
        answers, errors = in_parallel(
            busy, lambda plan: _apply_plan(connections[plan.host], plan, progress)
        )
    except BaseException:  # Ctrl-C: the threads are left behind, their locks must not be
        for name in busy:
            unlock(connections[name])
        raise
    if errors:
        raise combine_errors(errors)
    return {name: answers.get(name, ApplyResult()) for name in plans}


def fetch_all_wheels(
    plans: Mapping[str, HostPlan],
    *,
    progress: Progress = no_progress,
) -> int:
    """Fetch the wheels that the plans send. Returns the bytes fetched. Raises LaunchError."""
    fetched = 0
    targets: dict[Platform, dict[Wheel, None]] = {}
    for plan in plans.values():
        if any(operation.stage == "push" for operation in plan.operations):
            wheels = targets.setdefault(plan.environment.lockfile.target, {})
            wheels.update(dict.fromkeys(plan.environment.pushed_wheels))
    for target, wheels in targets.items():
        fetched += fetch_wheels(wheels, target, progress=progress)
    return fetched


def needed_bytes(operations: Sequence[Operation]) -> int:
    """Room that they take on the host's disk, at most: files sent and what they unpack to."""
    total = 0
    for send in operations:
        if isinstance(send, SendFile):
            size = send.local_path.stat().st_size
            total += size
            if send.stage == "push":
                total += unpacked_bytes(send.local_path)
            elif send.stage == "python":
                total += int(size * PYTHON_UNPACKED_RATIO)
    return total


def _apply_plan(connection: Connection, plan: HostPlan, progress: Progress) -> ApplyResult:
    applied = ApplyResult()

    with client_lock(connection, notify=lambda message: progress(message, 0, None, host=plan.host)):
        operations = _not_ready(connection, plan.operations)
        try:
            _require_room(plan, operations)
            for stage, some in groupby(operations, key=lambda operation: operation.stage):
                started = time.monotonic()
                _apply_stage(connection, list(some), progress, applied)
                applied.seconds[stage] = time.monotonic() - started
        except DiskFull:
            _remove_unready(connection, operations)
            raise
    return applied


def _not_ready(connection: Connection, operations: Sequence[Operation]) -> list[Operation]:
    """Another client may have done it since the facts were gathered."""
    targets = dict.fromkeys(operation.target for operation in operations)
    tests = "".join(f"[ ! -e {ROOT}/{target}/ready ] || echo {target}\n" for target in targets)
    ready = connection.check(tests, step="what is ready").split()
    return [operation for operation in operations if operation.target not in ready]


def _require_room(plan: HostPlan, operations: Sequence[Operation]) -> None:
    needed = needed_bytes(operations) + DISK_RESERVE_BYTES
    if needed > plan.free_bytes:
        raise _disk_full(
            plan.host, f"{format_bytes(needed)} needed, {format_bytes(plan.free_bytes)} free"
        )


def _apply_stage(
    connection: Connection,
    operations: list[Operation],
    progress: Progress,
    applied: ApplyResult,
) -> None:
    """In order, except that files which follow each other go beside each other."""
    total = sum(op.local_path.stat().st_size for op in operations if isinstance(op, SendFile))
    sent = _SendProgress(connection.name, total, progress)
    for is_send, some in groupby(operations, key=lambda op: isinstance(op, SendFile)):
        if is_send:
            largest_first = sorted(
                (op for op in some if isinstance(op, SendFile)),
                key=lambda op: -op.local_path.stat().st_size,
            )
            _send_all(connection, largest_first, sent)
            continue
        for operation in some:
            progress(operation.description, sent.bytes, total or None, host=connection.name)
            if isinstance(operation, WriteFile):
                connection.write(operation.path, operation.text.encode())
            elif isinstance(operation, RunCommand):
                _run(connection, operation)
    applied.sent_bytes += sent.bytes


class _SendProgress:
    """Counts the bytes sent to one host, of several files at once."""

    def __init__(self, host: str, total: int, progress: Progress) -> None:
        self.host, self.total, self.progress = host, total, progress
        self.files: dict[str, int] = {}
        self.lock = threading.Lock()

    @property
    def bytes(self) -> int:
        return sum(self.files.values())

    def add(self, send: SendFile, done: int) -> None:
        with self.lock:
            self.files[send.path] = done
            self.progress(f"sending {send.description}", self.bytes, self.total, host=self.host)


def _send_all(connection: Connection, sends: list[SendFile], sent: _SendProgress) -> None:
    def send_file(send: SendFile) -> None:
        with _streams:
            connection.send(
                send.local_path, send.path, sha256=send.sha256,
                on_bytes=lambda done: sent.add(send, done),
            )  # fmt: skip

    pool = ThreadPoolExecutor(FILES_AT_ONCE)
    try:
        for future in [pool.submit(send_file, send) for send in sends]:
            future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _run(connection: Connection, operation: RunCommand) -> None:
    done = connection.run(operation.command, step=operation.description, timeout=operation.seconds)
    if done.status == 0:
        return
    if done.met_full_disk:
        raise _disk_full(connection.name, f"while trying to {operation.description}")
    output = done.stderr.strip() or done.stdout.strip()
    raise CommandFailed(
        connection.name,
        f"could not {operation.description} (exit status {done.status}): {output[-1000:]}",
        fix=f"ssh to it and look; what was begun is in ~/{ROOT}/{operation.target}",
    )


def _remove_unready(connection: Connection, operations: Sequence[Operation]) -> None:
    """Leave no full disk behind: what was sent for targets that did not get ready."""
    paths = [f"{ROOT}/{target}" for target in dict.fromkeys(op.target for op in operations)]
    tests = "".join(f"[ -e {path}/ready ] || rm -rf {path} {path}.*\n" for path in paths)
    with contextlib.suppress(HostError):
        connection.run(f"{tests}rm -rf {ROOT}/wheels", step="clean up")


def _disk_full(host: str, message: str) -> DiskFull:
    return DiskFull(
        host,
        f"no room in its home folder: {message}",
        fix=f"free space on {host}, or put its ~/{ROOT} on a larger disk (a symbolic link will do)",
    )
