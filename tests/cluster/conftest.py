"""Two machines for the tests of this folder, booted once."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import SSHD, Host, Lab
from pair import CLUSTER, PairClient, listing
from reach import Connect, add_to, make_key, target
from running import Run
from situations import Seen

from launcher.ssh.connection import SshConnection, connect


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    if os.geteuid() != 0 or not Path(SSHD).exists() or shutil.which("ip") is None:
        pytest.skip("test hosts need root, openssh-server and iproute2")
    # Not under /tmp: the hosts have one of their own over it.
    folder = Path(tempfile.mkdtemp(prefix="launch-lab-", dir="/var/tmp"))
    made = Lab(folder)
    try:
        made.add("one", core=0)
        made.add("two", core=min(1, len(os.sched_getaffinity(0)) - 1))
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def seen() -> Iterator[Seen]:
    """What users read, for the table in SITUATIONS.md."""
    table = Seen()
    yield table
    if file := os.environ.get("SITUATIONS"):
        table.write(Path(file))


@pytest.fixture(scope="session")
def box(lab: Lab) -> Iterator[Host]:
    """A host for tests that break it, on a network and a port of its own."""
    own = Lab(Path(tempfile.mkdtemp(prefix="launch-lab-", dir="/var/tmp")))
    try:
        yield own.add("box", port=2222)
    finally:
        own.close()


@pytest.fixture
def ssh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the user's ssh_config and known_hosts, and no key or agent of the user's."""
    (tmp_path / "ssh_config").write_text(
        f"IdentityAgent none\nIdentityFile none\nUserKnownHostsFile {tmp_path}/known_hosts\n"
        "GlobalKnownHostsFile none\n"
    )
    monkeypatch.setenv("LAUNCH_SSH_CONFIG", str(tmp_path / "ssh_config"))
    return tmp_path


@pytest.fixture
def connected(ssh_home: Path) -> Iterator[Connect]:
    """Connections that are closed after the test."""
    opened = []

    def open_one(machine: Host, **changes: Any) -> SshConnection:
        opened.append(connect(target(machine, ssh_home, **changes)))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()


@pytest.fixture
def agent(ssh_home: Path) -> Iterator[Path]:
    """A running agent with ten keys, none of which lets anybody in."""
    socket_path = Path(tempfile.mkdtemp(prefix="agent-")) / "socket"
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(socket_path)], stdout=subprocess.DEVNULL
    )
    while not socket_path.exists():
        time.sleep(0.01)
    for number in range(10):
        add_to(socket_path, make_key(ssh_home / f"other{number}"))
    with (ssh_home / "ssh_config").open() as file:
        text = file.read()
    (ssh_home / "ssh_config").write_text(text.replace("Agent none", f"Agent {socket_path}"))
    yield socket_path
    process.terminate()
    process.wait()
    shutil.rmtree(socket_path.parent)


# --- one warm cluster for all tests of runs


@pytest.fixture(scope="session")
def before(lab: Lab) -> dict[str, dict[str, str]]:
    """Files of the hosts as they were found. One of them has a crontab of its user's."""
    lab.hosts[0].ssh("printf '# mine, 5%% of it\\n\\n5 4 * * * true\\n\\n' | crontab -")
    return {host.name: listing(host) for host in lab.hosts}


@pytest.fixture(scope="session")
def client(
    lab: Lab, before: object, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PairClient]:
    made = PairClient(tmp_path_factory.mktemp("client"), lab.hosts)
    yield made
    made.launch("cluster", "down", CLUSTER, "--purge", "--discard-runs", "--force")


@pytest.fixture(scope="session")
def whole(client: PairClient) -> Run:
    """The first run: bare hosts, nothing prepared, one command."""
    summary = client.train("whole", timeout=600)
    assert (summary["steps"], summary["restarts"], summary["cluster"]) == (40, 0, CLUSTER)
    return client.run("whole")


@pytest.fixture
def hosts(lab: Lab) -> tuple[Host, Host]:
    one, two = lab.hosts
    return one, two


@pytest.fixture
def slow_link(hosts: tuple[Host, Host]) -> Iterator[None]:
    """Slower steps, so that a fault finds the run in the middle."""
    for host in hosts:
        host.limit_link(100)
    yield
    for host in hosts:
        host.unlimit_link()
