"""What hosts print becomes facts; what they cannot tell is missing, not wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.hosts.facts import (
    FACTS_SCRIPT,
    FACTS_SECONDS,
    HostFacts,
    InstalledPython,
    gather_facts,
)
from launcher.hosts.facts import parse_facts as parse
from launcher.ssh.fake import FakeConnection
from launcher.ssh.interfaces import Interface

CASES = Path(__file__).with_name("facts_cases")
CLOCK = 1795393927.868809852  # of the captured host


def captured(name: str, *, asked_at: float = CLOCK - 0.1) -> HostFacts:
    text = (CASES / f"{name}.txt").read_text()
    return parse(text, asked_at=asked_at, answered_at=asked_at + 0.4)


def test_a_debian_host() -> None:
    facts = captured("debian12")
    assert (facts.system, facts.architecture, facts.hostname) == ("Linux", "x86_64", "one")
    assert (facts.user, facts.home, facts.cores) == ("ada", "/home/ada", 1)
    assert facts.glibc == "2.36"
    assert facts.memory_bytes == 24684084 * 1024
    assert facts.disk_free_bytes == 59947536 * 1024
    assert facts.shm_free_bytes == 12342040 * 1024
    assert facts.ssh_address == "198.18.1.11"
    assert facts.interfaces == (
        Interface("lo", "127.0.0.1", 8),
        Interface("eth0", "198.18.1.11", 24),
    )
    assert facts.hostname_addresses == ("127.0.1.1",)
    assert facts.pythons == (InstalledPython("/usr/bin/python3", "3.11.2"),)
    assert facts.listening_ports == {22}
    assert facts.ready["env/a1aa7fd9e0baccf4"] == "559110a28d19f43e"
    assert facts.ray_processes == facts.gpus.gpus == ()


def test_the_interface_of_an_ipv6_address() -> None:
    said = "@ssh\n2001:2::1 50112 2001:2::5 22\n@ssh-interface\n2: eth0@if3    inet6 2001:2::5/64\n"
    facts = parse(said, asked_at=0, answered_at=0)
    assert (facts.ssh_address, facts.ssh_interface) == ("2001:2::5", "eth0")


def test_cores_of_two_kinds() -> None:
    """A 13900KF: eight performance cores of two threads each, sixteen efficiency cores."""
    facts = parse("@cores\n32\n@core-kinds\ncore 0-15\natom 16-31\n", asked_at=0, answered_at=0)
    assert (facts.cores, facts.performance_cores, facts.efficiency_cores) == (32, 16, 16)
    one = parse("@core-kinds\ncore 0,2,4-6\n", asked_at=0, answered_at=0)
    assert (one.performance_cores, one.efficiency_cores) == (5, 0)


def test_a_host_that_can_tell_little() -> None:
    facts = captured("alpine_like")
    assert facts.architecture == "aarch64" and facts.glibc is None
    assert facts.ssh_address is None and facts.shm_free_bytes is None
    assert facts.interfaces == facts.hostname_addresses == ()
    assert facts.pythons == (InstalledPython("/usr/bin/python3", "3.12.3"),)
    assert facts.listening_ports == {8080, 22}
    assert len(facts.ray_processes) == 1 and facts.gpus.can_open_kfd is False


@pytest.mark.parametrize(
    ("asked_at", "offset"),
    [
        (CLOCK - 0.1, 0.0),  # between question and answer: not to be told from right
        (CLOCK - 60, 59.6),
        (CLOCK + 60, -60.0),
    ],
)
def test_the_clock(asked_at: float, offset: float) -> None:
    facts = captured("debian12", asked_at=asked_at)
    assert facts.clock_offset_seconds == pytest.approx(offset, abs=0.001)


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("glibc 2.36", "2.36"),
        ("ldd (Debian GLIBC 2.36-9+deb12u14) 2.36", "2.36"),
        ("ldd (Ubuntu GLIBC 2.39-0ubuntu8.4) 2.39", "2.39"),
        ("ldd (GNU libc) 2.28", "2.28"),
        ("musl libc (x86_64)", None),
    ],
)
def test_glibc(line: str, version: str | None) -> None:
    assert parse(f"@glibc\n{line}\n", asked_at=0, answered_at=0).glibc == version


@pytest.mark.parametrize(
    ("line", "interface"),
    [
        ("2: wlp3s0    inet 192.168.1.7/24 brd 192.168.1.255 scope global dynamic wlp3s0",
         Interface("wlp3s0", "192.168.1.7", 24)),
        ("5: eth0@if12    inet 10.0.0.2/16 scope global eth0", Interface("eth0", "10.0.0.2", 16)),
        ("7: wg0    inet 10.8.0.2 peer 10.8.0.1/32 scope global wg0",
         Interface("wg0", "10.8.0.2", 32)),
    ],
)  # fmt: skip
def test_interfaces(line: str, interface: Interface) -> None:
    found = parse(f"@interfaces\n{line}\n", asked_at=0, answered_at=0).interfaces
    assert found == (interface,)


def test_it_takes_one_command() -> None:
    host = FakeConnection("one", {"say clock": (CASES / "debian12.txt").read_text()})
    assert gather_facts(host).hostname == "one"
    assert host.ran == [FACTS_SCRIPT]
    assert FACTS_SECONDS >= 10  # a laptop that wakes its disk
