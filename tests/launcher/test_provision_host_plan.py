"""Facts in, commands out: each case is a file of provision_cases/. And how plans are carried out.

A new case needs no Python: copy a file, change facts or need, run, read what it says, keep it.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from pathlib import Path

import pytest
from provisioning import GIB, facts, make_wheel

from launcher.errors import CommandFailed, ConnectionLost, DiskFull, HostsFailed
from launcher.hosts.platform import Platform
from launcher.provision.apply import ApplyResult, apply_plans, fetch_all_wheels, needed_bytes
from launcher.provision.client_lock import client_lock
from launcher.provision.code import CodeArchive, pack_code
from launcher.provision.host_plan import HostEnvironment, HostPlan, SendFile, plan_host
from launcher.provision.lockfile import Lockfile, Wheel
from launcher.provision.python import ChosenPython
from launcher.provision.python_builds import PythonBuild
from launcher.provision.wheels import wheel_path
from launcher.ssh.fake import FakeConnection, Reply
from launcher.ssh.protocol import Completed, Connection

CASES = sorted(Path(__file__).with_name("provision_cases").glob("*.json"))
TARGET = Platform("x86_64", 11, "cpu")
WHEELS = (
    Wheel("click", "8.5.1", "click-8.5.1-py3-none-any.whl", "https://index/click.whl", "c" * 64),
    Wheel("pip", "26.3", "pip-26.3-py3-none-any.whl", "https://index/pip.whl", "d" * 64),
    Wheel("torch", "2.13.0+cpu", "torch-2.13.0+cpu-x.whl", "file:///opt/torch-x.whl", "e" * 64),
)
PYTHONS = {
    "own": ChosenPython(11, "Python 3.11.2 is on all 2 hosts", path="/usr/bin/python3.11"),
    "sent": ChosenPython(
        12, "", build=PythonBuild("3.12.13", Path("/client/python.tar.gz"), "b" * 64)
    ),
}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_HOME", "/client")


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_case(path: Path) -> None:
    case = json.loads(path.read_text())
    need = HostEnvironment(
        PYTHONS[case["need"]["python"]],
        Lockfile("r", TARGET, WHEELS),
        CodeArchive("code0", Path("/client/code/code0.tar.gz"), "a" * 64),
        push=case["need"]["push"],
    )
    plan = plan_host("one", facts(**case["facts"]), need)
    said = [str(operation).split("\n") for operation in plan.operations]
    assert said == case["operations"], json.dumps(said, indent=1)


def test_there_are_cases() -> None:
    assert len(CASES) >= 5


# --- carrying out


@pytest.fixture
def need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostEnvironment:
    """Two small wheels that are on this disk."""
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path / "home"))
    wheels = []
    for name in ("pip", "app"):
        path = make_wheel(tmp_path / "wheels", name, "1.0")
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        wheels.append(Wheel(name, "1.0", path.name, path.as_uri(), sha256))
    return HostEnvironment(PYTHONS["own"], Lockfile("r", TARGET, tuple(wheels)), pack_code())


def plans_of(need: HostEnvironment, *hosts: str, **changed: object) -> dict[str, HostPlan]:
    plans = {host: plan_host(host, facts("3.11.2", **changed), need) for host in hosts}
    fetch_all_wheels(plans)
    return plans


def host(name: str = "one", *replies: tuple[str, Reply], ready: str = "") -> FakeConnection:
    """Everything that is run succeeds, but for what `replies` say."""
    always = (("taken", "taken\n"), (r"^\[ ! -e \.launch", ready), ("", ""))
    return FakeConnection(name, [*replies, *always])


def installs(connection: FakeConnection) -> list[str]:
    return [command for command in connection.ran if " -m venv " in command]


def test_hosts_get_what_they_need(need: HostEnvironment) -> None:
    seen: list[tuple[str, int, int]] = []
    connections = {"one": host("one"), "two": host("two")}
    done = apply_plans(
        connections,
        plans_of(need, "one", "two"),
        progress=lambda what, done, total, host: seen.append((what, done, total)),
    )
    size = sum(wheel_path(wheel).stat().st_size for wheel in need.lockfile.wheels)
    code = need.code.archive.stat().st_size
    for name, connection in connections.items():
        assert done[name].sent_bytes == size + code
        assert list(done[name].seconds) == ["push", "install", "code"]
        assert len(installs(connection)) == 1
        sent = [path for path in connection.files if path.endswith(".whl")]
        assert len(sent) == 2
    assert ("sending code", code, code) in seen
    assert any(sent == total == size for _, sent, total in seen)


def test_a_ready_host_is_left_alone(need: HostEnvironment) -> None:
    ready = {f"env/{need.key}": need.lockfile.key, f"code/{need.code.key}": need.code.key}
    connection = host()
    done = apply_plans({"one": connection}, plans_of(need, "one", ready=ready))
    assert connection.ran == [] and connection.files == {}
    assert done == {"one": ApplyResult()}


def test_what_another_client_made_meanwhile_is_not_made_again(need: HostEnvironment) -> None:
    connection = host(ready=f"env/{need.key}\n")
    done = apply_plans({"one": connection}, plans_of(need, "one"))
    assert installs(connection) == []
    assert list(done["one"].seconds) == ["code"]


def test_one_that_fails_does_not_keep_others(need: HostEnvironment) -> None:
    connections = {
        "one": host("one", (" -m venv ", ConnectionLost("one", "gone"))),
        "two": host("two", (" -m venv ", Completed(1, "", "pip: something is wrong"))),
        "three": host("three"),
    }
    with pytest.raises(HostsFailed) as caught:
        apply_plans(connections, plans_of(need, "one", "two", "three"))
    assert [error.host for error in caught.value.errors] == ["one", "two"]
    assert isinstance(caught.value.errors[1], CommandFailed)
    assert "install 2 packages (exit status 1): pip: something is wrong" in caught.value.message
    assert any("code/" in path for path in connections["three"].files)
    assert "provision.lock" in connections["two"].ran[-1]  # unlocked


def test_no_room_is_known_before_anything_is_sent(need: HostEnvironment) -> None:
    connection = host()
    plans = plans_of(need, "one", disk_free_bytes=100_000_000)
    with pytest.raises(DiskFull, match=r"one: no room .* 10\d MB needed, 100 MB free"):
        apply_plans({"one": connection}, plans)
    assert connection.files == {} and installs(connection) == []
    sent = [op for op in plans["one"].operations if isinstance(op, SendFile)]
    assert needed_bytes(plans["one"].operations) > sum(op.local_path.stat().st_size for op in sent)
    apply_plans({"one": connection}, plans_of(need, "one", disk_free_bytes=GIB))


def test_a_disk_that_fills_meanwhile(need: HostEnvironment) -> None:
    full = Completed(1, "", "OSError: [Errno 28] No space left on device")
    connection = host("one", (" -m venv ", full))
    with pytest.raises(DiskFull, match=r"one: no room .* while trying to install 2 packages"):
        apply_plans({"one": connection}, plans_of(need, "one"))
    assert f"rm -rf .launch/env/{need.key} " in connection.ran[-2]
    assert "rm -rf .launch/wheels" in connection.ran[-2]


def test_waiting_for_another_client() -> None:
    told: list[str] = []
    answers = iter(["", "", "taken\n", ""])

    class Busy(FakeConnection):
        def check(self, command: str, **rest: object) -> str:
            return next(answers)

    connection: Connection = Busy("one", {"": ""})
    with client_lock(connection, notify=told.append):
        pass
    assert told == ["another client is at work there: waiting for it"]


def test_code_is_packed_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path / "home"))
    package = tmp_path / "pack"
    for name in ("a.py", "room/b.py", "__pycache__/a.pyc", "shipped/x.yaml"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(name)
    first = pack_code((package,))
    assert pack_code((package,)) == first
    with tarfile.open(first.archive) as tar:
        assert tar.getnames() == ["pack/a.py", "pack/room/b.py"]
    (package / "a.py").touch()
    assert pack_code((package,)) == first
    (package / "a.py").write_text("changed")
    assert pack_code((package,)).key != first.key
    assert re.fullmatch("[0-9a-f]{16}", first.key)
