"""The test hosts are what they claim to be: separate machines that can fail as real ones do."""

from __future__ import annotations

import socket
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest
from instruction_sets import CAPS
from lab import INSTRUCTION_CAPS, USER, Host, Lab


@pytest.fixture
def hosts(lab: Lab) -> tuple[Host, Host]:
    one, two = lab.hosts
    return one, two


def connects(source: Host, target: Host, port: int, seconds: float = 3) -> bool:
    script = f"exec 3<>/dev/tcp/{target.address}/{port}"
    return source.ssh(f"timeout {seconds} bash -c '{script}'", check=False).returncode == 0


def test_each_is_a_machine_of_its_own(hosts: tuple[Host, Host]) -> None:
    for host in hosts:
        said = host.ssh("hostname; whoami; nproc; ls -A /tmp /dev/shm; hostname -i").stdout.split()
        assert said == [host.name, USER, "1", "/dev/shm:", "/tmp:", "127.0.1.1"]
    one, two = hosts
    one.ssh("echo mine > ~/file && echo mine > /tmp/file")
    assert two.ssh("cat ~/file /tmp/file", check=False).returncode == 1
    assert (one.home / "file").read_text() == "mine\n"
    assert not Path("/tmp/file").exists()


def test_they_reach_each_other_and_nothing_else(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    assert connects(one, two, two.port)
    assert connects(two, one, one.port)
    away = "python3 -c \"import socket; socket.create_connection(('192.0.2.1', 80), 2)\""
    assert "Network is unreachable" in one.ssh(away, check=False).stderr


def test_a_pulled_cable_is_silence_and_not_refusal(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    two.unplug()
    try:
        assert not connects(one, two, two.port, seconds=1)
        with pytest.raises(TimeoutError):
            socket.create_connection((two.address, two.port), timeout=1)
    finally:
        two.plug()
    deadline = time.monotonic() + 10
    while not connects(one, two, two.port):
        assert time.monotonic() < deadline


@pytest.mark.usefixtures("lab")  # skips where no host can be made
def test_a_host_computes_with_the_instructions_of_the_tests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In sessions, and in what cron starts when it boots."""
    assert {*INSTRUCTION_CAPS} == {name for cap in CAPS.values() for name in cap}
    for name, value in CAPS["AVX2"].items():
        monkeypatch.setenv(name, value)
    expected = {f"{name}={value}" for name, value in CAPS["AVX2"].items()}
    with closing(Lab(Path(tempfile.mkdtemp(prefix="launch-lab-", dir="/var/tmp")))) as own:
        host = own.add("capped")
        assert expected <= {*host.ssh("env").stdout.splitlines()}
        host.ssh("echo '@reboot env > ~/booted.part && mv ~/booted.part ~/booted' | crontab -")
        host.cut_power()
        host.boot()
        deadline = time.monotonic() + 10
        while not (host.home / "booted").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert expected <= {*(host.home / "booted").read_text().splitlines()}


def test_a_power_cut_ends_everything_and_a_boot_keeps_the_disk(hosts: tuple[Host, Host]) -> None:
    one, _ = hosts
    one.ssh("echo kept > ~/kept; setsid sleep 1000 > /dev/null 2>&1 < /dev/null & sleep 0.3")
    assert "sleep 1000" in one.processes()
    one.cut_power()
    deadline = time.monotonic() + 5
    while one.processes():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    one.boot()
    assert one.ssh("cat ~/kept; ls -A /dev/shm").stdout == "kept\n"


def test_the_speed_of_a_link_can_be_set(hosts: tuple[Host, Host]) -> None:
    """Bytes in flight for a second at 8 Mbit/s: not more than 1.3 MB arrive, burst included."""
    one, two = hosts
    two.limit_link(8)
    try:
        listener = (
            "import socket, time; s = socket.create_server(('', 7000)); c, _ = s.accept(); "
            "c.settimeout(0.2); end = time.time() + 1; n = 0\n"
            "while time.time() < end:\n"
            "    try: n += len(c.recv(1 << 16))\n"
            "    except TimeoutError: pass\n"
            "print(n)"
        )
        sender = (
            "import socket, time; end = time.time() + 5\n"
            "while time.time() < end:\n"
            f"    try: s = socket.create_connection(('{two.address}', 7000)); break\n"
            "    except OSError: time.sleep(0.05)\n"
            "try: s.sendall(bytes(1 << 25))\n"
            "except OSError: pass"
        )
        one.ssh(f'python3 -c "{sender}" > /dev/null 2>&1 < /dev/null &')
        received = int(two.ssh(f'python3 -c "{listener}"').stdout)
        assert 300_000 < received < 1_300_000
    finally:
        two.unlimit_link()
