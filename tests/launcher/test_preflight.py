"""Facts and attempts in, findings out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_facts import captured

from launcher.errors import HostError
from launcher.hosts.cluster_addresses import ClusterAddress, choose_addresses
from launcher.hosts.facts import HostFacts
from launcher.hosts.link_speed import PairSpeed
from launcher.hosts.network_preflight import judge_pairs
from launcher.hosts.port_probe import PairLink, PairResults
from launcher.hosts.preflight import Finding, judge_host
from launcher.ssh.interfaces import Interface

GOOD = captured("debian12")
PLACE = ClusterAddress("198.18.1.11", "eth0", "the client reaches it there")
PLACES = {"one": PLACE, "two": ClusterAddress("198.18.1.12", "eth1", "the client reaches it there")}
PORTS = (20000, 20001)


def findings(facts: HostFacts, **options: bool) -> list[Finding]:
    return list(judge_host("one", facts, PLACE, PORTS, **{"is_up": False, **options}))


def test_a_good_host() -> None:
    found = findings(GOOD)
    assert {finding.severity for finding in found} == {"ok"}
    codes = [finding.code for finding in found]
    assert codes == [
        "system", "python", "disk", "clock", "boot", "address", "hostname-loopback",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "severity", "code", "words"),
    [
        ({"architecture": "armv7l"}, "error", "system", "Ray and torch do not run there"),
        ({"system": "Darwin"}, "error", "system", "Darwin"),
        ({"glibc": "2.17"}, "error", "system", "too old for torch"),
        ({"glibc": None}, "error", "system", "glibc -"),
        ({"pythons": ()}, "warning", "python", "one is sent"),
        ({"disk_free_bytes": 2 * 10**9, "ready": {}}, "error", "disk", "2 GB free"),
        ({"disk_free_bytes": 4 * 10**9, "ready": {}}, "warning", "disk", "small models"),
        ({"disk_free_bytes": 2 * 10**9}, "warning", "disk", "small models"),
        ({"shm_free_bytes": 64 * 2**20}, "error", "shm", "67.1 MB free in /dev/shm, Ray needs 134"),
        ({"clock_offset_seconds": 10.0}, "warning", "clock", "10 s ahead of ours"),
        ({"clock_offset_seconds": -4000.0}, "error", "clock", "1 h 7 min behind ours"),
        ({"listening_ports": frozenset({20001, 22})}, "error", "port-taken", "port 20001 is taken"),
        ({"ray_processes": ("1/cmdline raylet",)}, "ok", "ray-foreign", "left alone"),
        ({"cores": 24, "performance_cores": 16, "efficiency_cores": 8}, "ok", "system",
         "24 cores (16 performance, 8 efficiency)"),
        ({"boot_hooks": ()}, "warning", "boot", "rejoins at the next client command"),
        ({"boot_hooks": ("linger", "crontab")}, "ok", "boot", "asks to run without a login"),
        ({"kills_user_processes": True}, "error", "logout", "Ray would end when the client leaves"),
        ({"kills_user_processes": True, "boot_hooks": ("systemd",)}, "ok", "boot", "systemd"),
        ({"kernel": "5.15.167.4-microsoft-standard-WSL2"}, "warning", "wsl", "Linux in Windows"),
    ],
)  # fmt: skip
def test_what_is_found(changes: dict[str, object], severity: str, code: str, words: str) -> None:
    found = findings(replace(GOOD, **changes))  # type: ignore[arg-type]
    finding = next(each for each in found if each.code == code)
    assert finding.severity == severity and words in finding.message
    assert bool(finding.fix) == (severity == "error") or code in ("clock", "wsl", "boot")


def test_ports_of_our_own_ray_are_not_taken() -> None:
    busy = replace(GOOD, listening_ports=frozenset(PORTS), ray_processes=("1/cmdline raylet",))
    codes = {finding.code for finding in findings(busy, is_up=True)}
    assert "port-taken" not in codes and "ray-foreign" not in codes


@pytest.mark.parametrize(
    ("what", "fixed", "code", "words"),
    [
        ("timeout", True, "pair-port", "cannot reach two on port 20000 (no answer: a firewall"),
        ("refused", True, "pair-port", "(refused)"),
        ("timeout", False, "pair-ephemeral", "an ephemeral port"),
        ("other", True, "pair-port", "(other)"),
        ("Network is unreachable", True, "pair-route", "without a route between them"),
    ],
)
def test_pairs(what: str, fixed: bool, code: str, words: str) -> None:
    good = PairLink("two", "one", 20000, "ok", 0.4, True)
    bad = PairLink("one", "two", 20000, what, 0, fixed)
    found = list(judge_pairs(PairResults((good, bad), {}, ()), PLACES))
    assert [(f.severity, f.host, f.peer) for f in found] == [
        ("error", "one", "two"),
        ("ok", "two", "one"),
    ]
    assert found[0].code == code and words in found[0].message
    assert found[0].fix and ("two" in found[0].fix or code == "pair-route")


def test_a_link_is_shown_with_both_ends_its_round_trip_and_its_throughput() -> None:
    result = PairResults((PairLink("one", "two", 20000, "ok", 0.4, True, "198.18.1.11"),), {}, ())
    (found,) = judge_pairs(result, PLACES, [PairSpeed("one", "two", 0.213, 117.5e6)])
    assert found.severity == "ok" and found.message == (
        "reaches two on every port, eth0 to eth1: round trip 0.21 ms, 0.94 Gbit/s"
    )


def test_a_taken_port_is_no_firewall() -> None:
    bad = PairLink("one", "two", 20000, "other", 0, True)
    found = list(judge_pairs(PairResults((bad,), {"two": (20000,)}, ("three",)), PLACES))
    assert [(f.host, f.code) for f in found] == [("three", "pair-skipped"), ("two", "port-taken")]


def host(ssh: str | None, *interfaces: tuple[str, str, int]) -> HostFacts:
    lo = Interface("lo", "127.0.0.1", 8)
    return replace(
        GOOD, ssh_address=ssh, interfaces=(lo, *(Interface(*each) for each in interfaces))
    )


LAN = ("eth0", "192.168.1.5", 24), ("eth0", "192.168.1.6", 24)
WIFI = ("wlan0", "192.168.7.5", 24)
DOCKER = ("docker0", "172.17.0.1", 16)
VPN = ("tailscale0", "100.100.1.5", 32)


@pytest.mark.parametrize(
    ("wanted", "one", "two", "chosen"),
    [
        (None, host("192.168.1.5", LAN[0]), host("192.168.1.6", LAN[1]),
         ["eth0", "eth0"]),
        # Reached over Wi-Fi, but the two share the Ethernet only.
        (None, host("192.168.7.5", LAN[0], WIFI), host("192.168.1.6", LAN[1]),
         ["eth0", "eth0"]),
        (None, host(None, LAN[0], DOCKER), host("192.168.1.6", LAN[1], DOCKER),
         ["eth0", "eth0"]),
        ("wlan0", host("192.168.1.5", LAN[0], WIFI), host(None, LAN[1], WIFI),
         ["wlan0", "wlan0"]),
        # Reached over IPv6: the IPv4 address of that interface.
        (None, replace(host("2001:db8::5", WIFI, LAN[0]), ssh_interface="eth0"),
         replace(host("2001:db8::6", ("wlan0", "192.168.7.6", 24), LAN[1]), ssh_interface="eth0"),
         ["eth0", "eth0"]),
        # Nothing in common: each where the client reaches it.
        (None, host("100.100.1.5", VPN), host("10.0.0.6", ("eno1", "10.0.0.6", 8)),
         ["tailscale0", "eno1"]),
    ],
)  # fmt: skip
def test_the_network_is_chosen(
    wanted: str | None, one: HostFacts, two: HostFacts, chosen: list[str]
) -> None:
    places = choose_addresses(wanted, {"one": one, "two": two})
    assert [place.interface for place in places.values()] == chosen
    assert all(place.reason for place in places.values())
    assert not any(place.address.startswith("127.") for place in places.values())


@pytest.mark.parametrize(
    ("wanted", "facts", "words"),
    [
        ("eth7", host("192.168.1.5", LAN[0]), "no interface eth7"),
        (None, host(None, LAN[0], WIFI), "eth0 192.168.1.5, wlan0 192.168.7.5"),
        (None, host(None, DOCKER), "it has no IPv4 address that other machines reach"),
    ],
)
def test_no_network(wanted: str | None, facts: HostFacts, words: str) -> None:
    other = host("10.0.0.6", ("eno1", "10.0.0.6", 8))
    with pytest.raises(HostError, match=words) as error:
        choose_addresses(wanted, {"one": facts, "two": other})
    assert error.value.host == "one" and error.value.fix
