"""TCP between hosts, tried for real: each "host" is an address of this machine's loopback."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from test_facts import captured

from launcher.errors import ConnectionLost
from launcher.hosts import link_speed, port_probe
from launcher.hosts.cluster_addresses import ClusterAddress
from launcher.hosts.facts import HostFacts, InstalledPython
from launcher.hosts.network_preflight import judge_pairs, working_pairs
from launcher.hosts.port_probe import PairResults, try_pairs
from launcher.ssh.fake import FakeConnection
from launcher.ssh.protocol import COMMAND_SECONDS

NAMES = ("one", "two", "three")
ADDRESSES = {"one": "127.0.0.2", "two": "127.0.0.3", "three": "127.0.0.4"}
PLACES = {name: ClusterAddress(address, "lo", "a test") for name, address in ADDRESSES.items()}
PORTS = (61_301, 61_302)  # above what Linux hands out
EPHEMERAL = (61_311, 61_313)  # three thirds of one port each
HOST = replace(
    captured("debian12"),
    pythons=(InstalledPython(sys.executable, "3.11.2"),),
    ephemeral_ports=EPHEMERAL,
)


class Here(FakeConnection):
    """Runs what it is told to, below a shell that greets."""

    def check(
        self, command: str, *, step: str, timeout: float = COMMAND_SECONDS, stdin: bytes = b""
    ) -> str:
        ran = subprocess.run(
            ["sh", "-c", f"echo Welcome; {command}"],
            input=stdin, capture_output=True, timeout=timeout, check=True,
        )  # fmt: skip
        return ran.stdout.decode()


class Gone(FakeConnection):
    def check(
        self, command: str, *, step: str, timeout: float = COMMAND_SECONDS, stdin: bytes = b""
    ) -> str:
        raise ConnectionLost(self.name, "it went away")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_probe, "TRY_SECONDS", 1.0)


def attempt(**changed: FakeConnection | HostFacts) -> PairResults:
    """All three hosts as they should be, but for the connections and facts that are given."""
    connections: dict[str, FakeConnection] = {name: Here(name) for name in NAMES}
    facts = dict.fromkeys(NAMES, HOST)
    for name, change in changed.items():
        if isinstance(change, HostFacts):
            facts[name] = change
        else:
            connections[name] = change
    return try_pairs(connections, facts, ADDRESSES, dict.fromkeys(NAMES, PORTS))


@pytest.fixture
def held(request: pytest.FixtureRequest) -> Iterator[None]:
    with socket.create_server((ADDRESSES["two"], request.param)):
        yield


def test_all_pairs_both_ways() -> None:
    results = attempt()
    assert (results.occupied_ports, results.skipped, results.failed) == ({}, (), ())
    expected = {(host, peer) for host in NAMES for peer in NAMES if host != peer}
    assert {(link.host, link.peer) for link in results.links} == expected
    assert {link.outcome for link in results.links} == {"ok"}
    assert {link.port for link in results.links if link.is_cluster_port} == set(PORTS)
    assert len({link.port for link in results.links if not link.is_cluster_port}) == 3
    # A loopback's packets leave from its first address: as from a card that is not the cluster's.
    found = list(judge_pairs(results, PLACES))
    assert {finding.code for finding in found} == {"pair-path"}
    assert all("leave from 127.0.0.1, not from lo" in each.message for each in found)


@pytest.mark.parametrize("held", [PORTS[0]], indirect=True)
def test_a_port_that_something_holds_is_one_finding(held: None) -> None:
    results = attempt()
    assert results.occupied_ports == {"two": (PORTS[0],)}
    errors = [each for each in judge_pairs(results, PLACES) if each.severity == "error"]
    assert [(each.host, each.code) for each in errors] == [("two", "port-taken")]


@pytest.mark.parametrize("held", [EPHEMERAL[1]], indirect=True)
def test_an_ephemeral_port_in_use_is_none(held: None) -> None:
    results = attempt()
    assert results.occupied_ports == {}
    assert "error" not in {finding.severity for finding in judge_pairs(results, PLACES)}


def test_a_host_without_python_is_passed_over() -> None:
    results = attempt(three=replace(HOST, pythons=(), ready={}))
    assert results.skipped == ("three",)
    assert {(link.host, link.peer) for link in results.links} == {("one", "two"), ("two", "one")}


def test_a_host_that_goes_away_is_named_and_no_other() -> None:
    found = list(judge_pairs(attempt(three=Gone("three")), PLACES))
    errors = [each for each in found if each.severity == "error"]
    assert [(e.host, e.code, e.message) for e in errors] == [
        ("three", "pair-failed", "it went away")
    ]
    assert {(each.host, each.peer) for each in found} >= {("one", "two"), ("two", "one")}


def test_every_link_is_measured_once_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pair that a firewall keeps apart is left out."""
    monkeypatch.setattr(link_speed, "STREAM_SECONDS", 0.02)
    connections = {name: Here(name) for name in NAMES}
    pairs = working_pairs(attempt()) - {frozenset(("one", "three"))}
    wide = replace(HOST, ephemeral_ports=(61_400, 61_900))
    found = link_speed.measure_links(connections, dict.fromkeys(NAMES, wide), ADDRESSES, pairs)
    assert {(each.host, each.peer) for each in found} == {
        ("one", "two"), ("two", "one"), ("two", "three"), ("three", "two"),
    }  # fmt: skip
    assert all(each.round_trip_ms > 0 and each.bytes_per_second > 0 for each in found)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 16])
def test_everybody_meets_everybody_in_as_few_rounds_as_there_can_be(count: int) -> None:
    names = [str(number) for number in range(count)]
    rounds = link_speed.round_robin(names)
    assert len(rounds) == count - 1 + count % 2
    met = [frozenset(pair) for each in rounds for pair in each.items()]
    assert len(met) == 2 * len(set(met)) == count * (count - 1)
    assert all(each[each[name]] == name for each in rounds for name in each)
