"""Bare hosts without a way out get an environment, keep it, and are left as they were."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import http.server
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lab import USER, Host, Lab
from pair import wait

from launcher.errors import ConnectionLost, DiskFull
from launcher.hosts.facts import HostFacts, gather_facts
from launcher.hosts.platform import Platform
from launcher.provision.apply import ApplyResult, apply_plans, fetch_all_wheels
from launcher.provision.client_lock import LOCK_FILE, client_lock
from launcher.provision.code import pack_code
from launcher.provision.environments import choose_push, reaches_servers
from launcher.provision.host_plan import HostEnvironment, HostPlan, plan_host
from launcher.provision.lockfile import Lockfile, resolve_wheels
from launcher.provision.purge import purge
from launcher.provision.python import ChosenPython, choose_pythons
from launcher.provision.python_builds import find_python_build
from launcher.provision.wheels import wheel_path
from launcher.ssh.connection import connect
from launcher.ssh.protocol import Connection
from launcher.ssh.target import resolve_target as find_target

TARGET = Platform("x86_64", 11, "cpu")
Connections = dict[str, Connection]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("launch-home")


@pytest.fixture(autouse=True)
def launch_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_HOME", str(home))


@pytest.fixture(scope="module")
def lock() -> Lockfile:
    """Real wheels, few and small: 3 MB."""
    return resolve_wheels(
        TARGET, ["pip", "click", "pyyaml"], [], request="small", hosts=["one", "two"]
    )


@pytest.fixture
def connections(lab: Lab, tmp_path: Path) -> Iterator[Connections]:
    pins = tmp_path / "lab.known_hosts"
    pins.write_text(lab.known_hosts())
    opened = {host.name: connect_to(host, pins) for host in lab.hosts}
    yield opened
    for host in lab.hosts:
        host.ssh("rm -rf ~/.launch")
    for connection in opened.values():
        connection.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def connect_to(host: Host, pins: Path) -> Connection:
    node: Any = SimpleNamespace(
        name=host.name, host=host.address, user=USER, port=host.port, key=str(host.lab.key),
        jump=None,
    )  # fmt: skip
    return connect(find_target(node, pins))


def facts_of(connection: Connection, **changed: Any) -> HostFacts:
    return dataclasses.replace(gather_facts(connection), **changed)


def need_of(connections: Connections, lock: Lockfile) -> HostEnvironment:
    facts = {name: facts_of(connection) for name, connection in connections.items()}
    return HostEnvironment(choose_pythons(None, facts)["one"], lock, pack_code())


def plans_of(
    connections: Connections, need: HostEnvironment, **changed: Any
) -> dict[str, HostPlan]:
    plans = {
        name: plan_host(name, facts_of(connection, **changed), need)
        for name, connection in connections.items()
    }
    fetch_all_wheels(plans)
    return plans


def files(connection: Connection) -> list[str]:
    """All of the login's home folder."""
    return connection.check("find . | sort", step="files").splitlines()


def sizes(need: HostEnvironment) -> tuple[int, int]:
    """Bytes of the wheels, of the code."""
    wheels = sum(wheel_path(wheel).stat().st_size for wheel in need.lockfile.wheels)
    return wheels, need.code.archive.stat().st_size


def test_bare_then_ready_then_bare(connections: Connections, lock: Lockfile) -> None:
    before = {name: files(connection) for name, connection in connections.items()}
    need = need_of(connections, lock)
    assert need.python.path.startswith("/usr/bin/python3")
    first = apply_plans(connections, plans_of(connections, need))
    wheels, code = sizes(need)
    for name, connection in connections.items():
        assert first[name].sent_bytes == wheels + code
        assert list(first[name].seconds) == ["push", "install", "code"]
        said = connection.check(
            f"cd .launch; PYTHONPATH=code/{need.code.key} env/{need.key}/bin/python -c '"
            "import click, yaml, nanochat, sys; print(click.__version__, sys.prefix)'",
            step="import",
        ).split()
        assert said == [lock.wheel("click").version, f"/home/{USER}/.launch/env/{need.key}"]
        kept = Lockfile.from_json(connection.read(f".launch/env/{need.key}/lock.json").decode())
        assert kept == lock
        left = [path for path in files(connection) if path.count("/") == 3]
        assert left == [f"./.launch/code/{need.code.key}", f"./.launch/env/{need.key}"]

    again = plans_of(connections, need)
    assert [plan.operations for plan in again.values()] == [(), ()]
    assert apply_plans(connections, again) == {"one": ApplyResult(), "two": ApplyResult()}

    changed = dataclasses.replace(need, code=dataclasses.replace(need.code, key="changed"))
    third = apply_plans(connections, plans_of(connections, changed))
    assert all(list(done.seconds) == ["code"] for done in third.values())
    assert all(done.sent_bytes == code for done in third.values())

    for name, connection in connections.items():
        connection.write(".launch/clusters/lab/cluster.json", b"{}")
        removed = purge(connection, "lab")
        assert {item.path for item in removed} == {
            f"env/{need.key}", f"code/{need.code.key}", "code/changed", "clusters/lab",
        }  # fmt: skip
        assert all(item.bytes > 0 for item in removed)
        assert files(connection) == before[name]


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # renamed in this moment
            total += path.stat().st_size * path.is_file()
    return total


def test_an_interrupted_push_goes_on(
    lab: Lab, connections: Connections, lock: Lockfile, tmp_path: Path
) -> None:
    """The power goes while wheels are under way; what had arrived is not sent again."""
    host, connection = lab.hosts[0], connections["one"]
    need = need_of(connections, lock)
    plan = plans_of({"one": connection}, need)
    total = sum(sizes(need))
    caught: list[Exception] = []

    def push() -> None:
        try:
            apply_plans({"one": connection}, plan)
        except ConnectionLost as error:
            caught.append(error)

    host.limit_link(16)
    thread = threading.Thread(target=push)
    thread.start()
    try:
        wait(lambda: _bytes_below(host.home / ".launch" / "wheels") > total / 2, 30, "half of it")
        host.cut_power()
    finally:
        thread.join()
        host.unlimit_link()
    host.boot()
    assert "one: " in str(caught[0])
    connections["one"] = connection = connect_to(host, tmp_path / "lab.known_hosts")
    there = int(connection.check("cat .launch/wheels/*/* | wc -c", step="arrived"))
    counter = Path(f"/sys/class/net/{host.cable}/statistics/tx_bytes")
    before = int(counter.read_text())
    apply_plans({"one": connection}, plans_of({"one": connection}, need))
    sent = int(counter.read_text()) - before
    assert there > total / 2
    assert sent < total - there + 400_000  # packets' headers, commands
    assert plans_of({"one": connection}, need)["one"].operations == ()


def test_a_full_disk(lab: Lab, connections: Connections, lock: Lockfile) -> None:
    """Found out before, where the facts say so, else on the way; then nothing is left."""
    host, connection = lab.hosts[0], {"one": connections["one"]}
    need = need_of(connections, lock)
    with pytest.raises(DiskFull, match="one: no room"):
        apply_plans(connection, plans_of(connection, need, disk_free_bytes=100_000_000))
    assert not (host.home / ".launch/wheels").exists()
    assert host._process
    inside = ["nsenter", "-t", str(host._process.pid), "--mount"]
    disk = f"/home/{USER}/.launch"
    for megabytes in (2, 8):  # full while wheels arrive, full while they are unpacked
        subprocess.run(
            [*inside, "mount", "-t", "tmpfs", "-o", f"size={megabytes}m,uid=2001", "disk", disk],
            check=True,
        )
        try:
            with pytest.raises(DiskFull) as caught:
                apply_plans(connection, plans_of(connection, need))
            assert caught.value.host == "one" and caught.value.fix
            left = connections["one"].check("find .launch -type f", step="files").split()
            assert left == [f"./{LOCK_FILE}".removeprefix("./")]
        finally:
            subprocess.run([*inside, "umount", disk], check=True)
    apply_plans(connection, plans_of(connection, need))  # room again


def test_a_python_that_is_sent(connections: Connections, lock: Lockfile, tmp_path: Path) -> None:
    """An archive in the form of python-build-standalone's, of this machine's Python."""
    archive = tmp_path / "cpython-3.11.2+20260718-x86_64-unknown-linux-gnu-install_only.tar.gz"
    skipped = ("__pycache__", "dist-packages", "config-3.11", "test", "idlelib", "pydoc_data")

    def wanted(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if any(word in info.name for word in skipped) else info

    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add("/usr/bin/python3.11", "python/bin/python3")
        tar.add("/usr/lib/python3.11", "python/lib/python3.11", filter=wanted)
    build = find_python_build(str(archive), "x86_64")
    assert build.version == "3.11.2"
    need = dataclasses.replace(
        need_of(connections, lock), python=ChosenPython(build.minor, "sent", build=build)
    )
    plans = plans_of(connections, need)
    done = apply_plans(connections, plans)
    for name, connection in connections.items():
        assert list(done[name].seconds) == ["python", "push", "install", "code"]
        said = connection.check(
            f".launch/env/{need.key}/bin/python -c 'import sys, yaml; print(sys.base_prefix)'",
            step="import",
        )
        assert said.strip() == f"/home/{USER}/.launch/python/{build.key}"
    assert all(plan.operations == () for plan in plans_of(connections, need).values())
    for connection in connections.values():
        assert f"python/{build.key}" in {item.path for item in purge(connection, "lab")}


def test_two_clients(connections: Connections, lock: Lockfile) -> None:
    """The second waits; one that died with the lock in hand is not waited for."""
    connection = connections["one"]
    need = need_of(connections, lock)
    plan = plans_of({"one": connection}, need)
    touched = f"for i in 1 2 3; do sleep 0.5; touch {LOCK_FILE}; done"
    taken = f"echo other > {LOCK_FILE}; {touched}; : > {LOCK_FILE}"
    connection.check("mkdir -p .launch", step="make")
    other = threading.Thread(target=connection.check, args=(taken,), kwargs={"step": "other"})
    other.start()
    time.sleep(0.3)
    told: list[str] = []
    begun = time.monotonic()
    apply_plans(
        {"one": connection}, plan, progress=lambda what, done, total, host: told.append(what)
    )
    other.join()
    assert told[0] == "another client is at work there: waiting for it"
    assert time.monotonic() - begun > 1
    assert (
        apply_plans({"one": connection}, plan)["one"] == ApplyResult()
    )  # as one with old facts would
    connection.check(f"echo dead > {LOCK_FILE}; touch -d '1 minute ago' {LOCK_FILE}", step="stale")
    with client_lock(connection, wait_seconds=0):
        pass


def test_whether_a_host_reaches_an_index(connections: Connections) -> None:
    facts = facts_of(connections["one"])
    assert not reaches_servers(connections["one"], facts, ["192.0.2.1:443"])
    two = connections["two"]
    assert reaches_servers(connections["one"], facts, [f"{two.address}:22"])
    assert not reaches_servers(connections["one"], facts, [f"{two.address}:22", f"{two.address}:9"])


def test_hosts_that_reach_the_index_download(
    lab: Lab, connections: Connections, lock: Lockfile
) -> None:
    """A server on the client's side of the cable in the index's place."""
    need = need_of(connections, lock)
    fetch_all_wheels(plans_of(connections, need))
    handler = functools.partial(Quiet, directory=str(wheel_path(lock.wheels[0]).parents[1]))
    with http.server.ThreadingHTTPServer((lab.gateway, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://{lab.gateway}:{server.server_address[1]}"
            wheels = tuple(
                dataclasses.replace(wheel, url=f"{url}/{wheel.sha256}/{wheel.filename}")
                for wheel in lock.wheels
            )
            served = dataclasses.replace(need, lockfile=dataclasses.replace(lock, wheels=wheels))
            facts = {name: facts_of(connection) for name, connection in connections.items()}
            needs = choose_push("auto", dict.fromkeys(facts, served), facts, connections)
            plans = {name: plan_host(name, facts[name], needs[name]) for name in facts}
            done = apply_plans(connections, plans)
        finally:
            server.shutdown()
            thread.join()
    pip = wheel_path(lock.wheel("pip")).stat().st_size
    for name, connection in connections.items():
        assert done[name].sent_bytes == pip + need.code.archive.stat().st_size
        connection.check(f".launch/env/{need.key}/bin/python -c 'import click, yaml'", step="use")
        assert not [path for path in files(connection) if ".cache" in path]
