"""Four hosts at once, one of them without room: the others get ready, a retry is for it alone."""

from __future__ import annotations

import hashlib
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import USER, Lab
from test_provision import connect_to, facts_of, lock, need_of, plans_of

from launcher.errors import DiskFull
from launcher.provision.apply import ApplyResult, apply_plans
from launcher.provision.lockfile import Lockfile
from launcher.ssh.parallel import call_on_all
from launcher.ssh.protocol import Connection

__all__ = ["lock"]
HOME = f"/home/{USER}"


@pytest.fixture
def four(lab: Lab) -> Iterator[Lab]:
    """A lab of its own; `lab` says whether there can be one."""
    made = Lab(Path(tempfile.mkdtemp(prefix="launch-lab-", dir="/var/tmp")))
    try:
        for number, name in enumerate(("one", "two", "three", "four")):
            made.add(name, core=number % 2)
        yield made
    finally:
        made.close()


@pytest.fixture
def connections(
    four: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Connection]]:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path))
    pins = tmp_path / "lab.known_hosts"
    pins.write_text(four.known_hosts())
    opened = {host.name: connect_to(host, pins) for host in four.hosts}
    yield opened
    for connection in opened.values():
        connection.close()


def test_three_of_four_get_ready_and_a_retry_goes_on(
    four: Lab, connections: dict[str, Connection], lock: Lockfile
) -> None:
    need = need_of(connections, lock)
    three = four.hosts[2]
    three.small_disk(f"{HOME}/.launch", megabytes=4)
    with pytest.raises(DiskFull, match="three: no room in its home folder"):
        apply_plans(connections, plans_of(connections, need, disk_free_bytes=10**9))
    three.inside(f"umount {HOME}/.launch; rmdir {HOME}/.launch")
    again = plans_of(connections, need)
    assert [name for name, plan in again.items() if plan.operations] == ["three"]
    done = apply_plans(connections, again)
    assert {name: each for name, each in done.items() if name != "three"} == dict.fromkeys(
        ("one", "two", "four"), ApplyResult()
    )
    for connection in connections.values():
        connection.check(f".launch/env/{need.key}/bin/python -c 'import click, yaml'", step="use")
        assert facts_of(connection).ready.keys() >= {f"env/{need.key}", f"code/{need.code.key}"}


def test_a_large_file_to_four_hosts_takes_no_memory(
    connections: dict[str, Connection], tmp_path: Path
) -> None:
    """Of 64 MiB to each, no more than some blocks of it are held at a time."""
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(64 << 20)
    digest = hashlib.sha256(bytes(64 << 20)).hexdigest()
    tracemalloc.start()
    try:
        call_on_all(connections, lambda each: each.send(large, ".launch/large", sha256=digest))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 32 << 20
