"""Many hosts at once, on hosts that are not there."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from provisioning import facts, make_wheel
from test_provision_host_plan import PYTHONS, TARGET

from launcher.errors import CommandFailed
from launcher.provision.apply import STREAMS_AT_ONCE, apply_plans, fetch_all_wheels
from launcher.provision.code import CodeArchive
from launcher.provision.host_plan import HostEnvironment, HostPlan, SendFile, plan_host
from launcher.provision.lockfile import Lockfile, Wheel
from launcher.ssh.fake import FakeConnection, Reply
from launcher.ssh.protocol import BytesDone

HOSTS = [f"host{number:02}" for number in range(16)]


class Busy:
    """How many transfers there are, and were at the most."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.lock = threading.Lock()

    def add(self, change: int) -> None:
        with self.lock:
            self.now += change
            self.most = max(self.most, self.now)


class SlowFake(FakeConnection):
    """A transfer takes a moment."""

    busy: Busy

    def send(
        self, local: Path, path: str, *, sha256: str, on_bytes: BytesDone = lambda done: None
    ) -> None:
        self.busy.add(1)
        time.sleep(0.02)
        super().send(local, path, sha256=sha256, on_bytes=on_bytes)
        self.busy.add(-1)


@pytest.fixture
def need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostEnvironment:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path))
    names = ("pip", "torch", "one", "two", "three", "four")
    made = [make_wheel(tmp_path / "made", name, "1.0") for name in names]
    wheels = tuple(
        Wheel(name, "1.0", path.name, path.as_uri(), _sha256(path))
        for name, path in zip(names, made, strict=True)
    )
    code = tmp_path / "code.tar.gz"
    code.write_bytes(b"code")
    lock = Lockfile("r", TARGET, wheels)
    return HostEnvironment(PYTHONS["own"], lock, CodeArchive("c0", code, _sha256(code)), push=True)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def plans(need: HostEnvironment, ready: Iterable[str] = ()) -> dict[str, HostPlan]:
    done = {f"env/{need.key}": need.lockfile.key, f"code/{need.code.key}": "ready"}
    planned = {
        name: plan_host(name, facts("3.11.2", ready=done if name in ready else {}), need)
        for name in HOSTS
    }
    fetch_all_wheels(planned)
    return planned


def connections(**broken: Exception) -> dict[str, SlowFake]:
    """Each does what it is told, but for the installation on those that are `broken`."""
    busy, made = Busy(), {}
    for name in HOSTS:
        replies: list[tuple[str, Reply]] = [("echo taken", "taken"), ("", "")]
        if name in broken:
            replies.insert(0, ("pip install", broken[name]))
        made[name] = SlowFake(name, replies)
        made[name].busy = busy
    return made


def test_each_of_sixteen_gets_all_of_its_files_once_and_no_more_travel_at_a_time(
    need: HostEnvironment,
) -> None:
    hosts, planned = connections(), plans(need)
    done = apply_plans(hosts, planned)
    for name, plan in planned.items():
        sent = {each.path for each in plan.operations if isinstance(each, SendFile)}
        assert sent <= hosts[name].files.keys() and len(sent) == 7
        sizes = (
            each.local_path.stat().st_size for each in plan.operations if isinstance(each, SendFile)
        )
        assert done[name].sent_bytes == sum(sizes)
    assert 1 < hosts["host00"].busy.most <= STREAMS_AT_ONCE


def test_one_that_fails_leaves_fifteen_ready_and_a_retry_is_for_it_alone(
    need: HostEnvironment,
) -> None:
    hosts = connections(host07=CommandFailed("host07", "its disk is read-only"))
    with pytest.raises(CommandFailed, match="host07: its disk is read-only"):
        apply_plans(hosts, plans(need))
    mark = f"tar -xzf .launch/code/{need.code.key}"  # what follows the installation
    ready = [name for name in HOSTS if any(mark in command for command in hosts[name].ran)]
    assert ready == [name for name in HOSTS if name != "host07"]
    again = plans(need, ready)
    assert [name for name, plan in again.items() if plan.operations] == ["host07"]
