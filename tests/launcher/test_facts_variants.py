"""Facts of hosts of other kinds: Ubuntu with much on it, busybox (ran for real, then trimmed), and
this machine. What Ubuntu prints is put together from documentation, not captured."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace

import pytest
from test_facts import CLOCK, captured

from launcher.hosts.cluster_addresses import ClusterAddress, choose_addresses
from launcher.hosts.facts import (
    EPHEMERAL_PORTS,
    FACTS_SCRIPT,
    HostFacts,
    InstalledPython,
    parse_facts,
)
from launcher.hosts.network_preflight import judge_addresses
from launcher.hosts.preflight import Finding, judge_host
from launcher.ssh.interfaces import Interface

UBUNTU = captured("ubuntu24")
BUSYBOX = captured("busybox")


def test_a_gaming_box() -> None:
    assert (UBUNTU.glibc, UBUNTU.cores, UBUNTU.default_interface) == ("2.39", 16, "enp5s0")
    assert UBUNTU.memory_available_bytes == 20971520 * 1024
    assert [each.name for each in UBUNTU.interfaces] == [
        "lo", "enp5s0", "wlp6s0", "docker0", "tailscale0",
    ]  # fmt: skip
    assert UBUNTU.pythons[1] == InstalledPython("/home/ada/.local/bin/python3.14", "3.14.0rc2")
    assert UBUNTU.listening_ports == {22, 53, 8888}
    assert UBUNTU.listeners[8888] == "jupyter-lab (process 9163)"
    assert UBUNTU.listeners[22] == "sshd (process 2952)"
    assert [gpu.name for gpu in UBUNTU.gpus.gpus] == ["NVIDIA GeForce RTX 4070"]
    assert UBUNTU.boot_hooks == ("systemd", "crontab")


def test_only_rays_and_torchruns_are_called_so() -> None:
    """Not an editor, a grep, or the shell that runs our own script and has these words in it."""
    assert [line.split()[0] for line in UBUNTU.ray_processes] == ["2201", "2305", "2306"]


def test_busybox() -> None:
    assert BUSYBOX.glibc is BUSYBOX.shm_free_bytes is None
    assert BUSYBOX.disk_free_bytes == 59892216 * 1024
    assert BUSYBOX.interfaces == (
        Interface("eth0", "192.168.1.9", 24),
        Interface("lo", "127.0.0.1", 8),
    )
    assert BUSYBOX.ephemeral_ports == (1024, 65000)
    assert BUSYBOX.boot_hooks == ("crontab",)
    assert BUSYBOX.any_python == "/root/.launch/python/3.12.11-20250818/bin/python3"


@pytest.mark.parametrize(
    ("lines", "interfaces"),
    [
        ("eth0: flags=4163<UP,BROADCAST>  mtu 1500\n"
         "        inet 10.0.0.7  netmask 255.255.0.0  broadcast 10.0.255.255\n"
         "        inet6 fe80::1  prefixlen 64  scopeid 0x20<link>\n"
         "lo: flags=73<UP,LOOPBACK>  mtu 65536\n"
         "        inet 127.0.0.1  netmask 255.0.0.0\n",
         (Interface("eth0", "10.0.0.7", 16), Interface("lo", "127.0.0.1", 8))),
        ("tun0      Link encap:UNSPEC  HWaddr 00-00\n"
         "          inet addr:10.8.0.6  P-t-P:10.8.0.5  Mask:255.255.255.255\n",
         (Interface("tun0", "10.8.0.6", 32),)),
    ],
)  # fmt: skip
def test_ifconfig(lines: str, interfaces: tuple[Interface, ...]) -> None:
    facts = parse_facts(f"@interfaces\n{lines}", asked_at=0, answered_at=0)
    assert facts.interfaces == interfaces


@pytest.mark.parametrize(
    ("clocks", "asked_at", "answered_at", "offset"),
    [
        ("100.5 100.7", 100.4, 100.8, 0.0),
        ("160.5 160.7", 100.4, 100.8, 59.9),  # its end is at most at 100.8
        ("40.5 40.7", 100.4, 100.8, -59.9),  # its start is at least at 100.4
        ("100.%N 100.%N", 100.9, 101.2, 0.0),  # some time in that second
        ("103.%N 103.%N", 100.1, 100.2, 2.8),
        ("", 100.4, 100.8, 0.0),
    ],
)
def test_the_clock(clocks: str, asked_at: float, answered_at: float, offset: float) -> None:
    output = "".join(f"@clock\n{clock}\n" for clock in clocks.split())
    facts = parse_facts(output, asked_at=asked_at, answered_at=answered_at)
    assert facts.clock_offset_seconds == pytest.approx(offset)


def test_a_host_that_says_nothing() -> None:
    facts = parse_facts("command not found: export\n", asked_at=CLOCK, answered_at=CLOCK)
    assert (facts.system, facts.cores, facts.pythons) == ("", 1, ())
    assert (facts.any_python, facts.ephemeral_ports) == (None, EPHEMERAL_PORTS)
    assert {each.code for each in judge(facts) if each.severity == "error"} == {"system", "disk"}


def test_this_machine() -> None:
    """The script itself, with a process beside it that is called as Ray's is."""
    ray = subprocess.Popen(["/opt/ray/raylet/raylet", "60"], executable="/bin/sleep")
    try:
        began = time.time()
        # As a login shell hands it on: its text is in the command lines of two shells.
        output = subprocess.run(
            ["sh", "-c", 'sh -c "$0"; true', FACTS_SCRIPT],
            capture_output=True,
            text=True,
            timeout=30,
        ).stdout
        facts = parse_facts(output, asked_at=began, answered_at=time.time())
    finally:
        ray.kill()
        ray.wait()
    assert output.endswith("@end\n")
    assert facts.home == os.environ["HOME"]
    assert facts.clock_offset_seconds == 0.0
    assert facts.memory_bytes > facts.memory_available_bytes > 0
    assert facts.pythons and "lo" in {each.name for each in facts.interfaces}
    assert f"{ray.pid} /opt/ray/raylet/raylet 60" in [line.strip() for line in facts.ray_processes]
    assert not any("LC_ALL" in line for line in facts.ray_processes)


def judge(facts: HostFacts, ports: tuple[int, ...] = (), *, ours: bool = False) -> list[Finding]:
    return list(judge_host("box", facts, None, ports, is_up=ours))


def test_who_holds_a_port_is_named_where_that_can_be_seen() -> None:
    found = [each.message for each in judge(UBUNTU, (8888,)) if each.code == "port-taken"]
    assert found == ["port 8888 is taken by jupyter-lab (process 9163)"]
    hidden = replace(UBUNTU, listeners={})
    assert "by another program" in str(judge(hidden, (8888,)))


@pytest.mark.parametrize(("ours", "count"), [(False, 1), (True, 0)])
def test_little_memory_is_a_warning_unless_our_ray_has_it(ours: bool, count: int) -> None:
    found = [each for each in judge(BUSYBOX, ours=ours) if each.code == "memory"]
    assert [each.severity for each in found] == ["warning"] * count
    assert all("1.84 GB of 2.08 GB" in each.message for each in found)


def test_without_glibc_nothing_runs() -> None:
    system = judge(BUSYBOX)[0]
    assert system.severity == "error" and "torch and Ray need one" in system.message


def reached(facts: HostFacts, address: str | None) -> HostFacts:
    return replace(facts, ssh_address=address)


BUSYBOX_ROUTED = replace(BUSYBOX, interfaces=(Interface("eth0", "10.9.9.9", 24),))


@pytest.mark.parametrize(
    ("one", "two", "chosen"),
    [
        # From a container or the machine itself: where its way out leads through.
        (reached(UBUNTU, "172.17.0.1"), BUSYBOX_ROUTED, ["enp5s0", "eth0"]),
        (reached(UBUNTU, "127.0.0.1"), BUSYBOX_ROUTED, ["enp5s0", "eth0"]),
        # Two networks in common: the one where the client reaches some host.
        (reached(UBUNTU, "100.101.102.103"),
         replace(BUSYBOX, ssh_address="192.168.1.9", interfaces=(
             Interface("eth0", "192.168.1.9", 24), Interface("eth1", "100.101.102.103", 32))),
         ["tailscale0", "eth1"]),
    ],
)  # fmt: skip
def test_the_network_is_chosen(one: HostFacts, two: HostFacts, chosen: list[str]) -> None:
    places = choose_addresses(None, {"one": one, "two": two})
    assert [place.interface for place in places.values()] == chosen


def test_a_vpn_is_noted() -> None:
    place = choose_addresses(None, {"one": reached(UBUNTU, "100.101.102.103")})["one"]
    assert (place.interface, place.note) == ("tailscale0", "a VPN")


def test_two_names_of_one_machine_are_found() -> None:
    one = ClusterAddress("10.0.2.15", "eth0", "so")
    found = list(judge_addresses({"a": one, "b": replace(one, address="10.0.2.16"), "c": one}))
    assert [(f.severity, f.host, f.peer, f.code) for f in found] == [("error", "c", "a", "address")]
