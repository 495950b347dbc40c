"""`launch cluster check` on real hosts: what is wrong is named, with its host and its fix."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import Host, Lab
from pair import CLUSTER, PairClient

from launcher.raycluster.ports import cluster_ports

PORTS = cluster_ports(CLUSTER)


@pytest.fixture(scope="module")
def client(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> PairClient:
    return PairClient(tmp_path_factory.mktemp("check"), lab.hosts)


@pytest.fixture
def hosts(lab: Lab) -> Iterator[tuple[Host, Host]]:
    one, two = lab.hosts
    yield one, two
    for host in lab.hosts:
        host.no_firewall()


def check(client: PairClient) -> tuple[int, list[dict[str, Any]]]:
    done = client.launch("cluster", "check", CLUSTER, "--json")
    assert "Traceback" not in done.stderr
    document = json.loads(done.stdout)
    assert document["ok"] == (done.returncode == 0)
    return done.returncode, document["findings"]


def errors(client: PairClient) -> list[tuple[str, str | None, str]]:
    """(host, peer, code) of each error; every one has a fix."""
    code, findings = check(client)
    found = [each for each in findings if each["severity"] == "error"]
    assert code == (1 if found else 0) and all(each["fix"] for each in found)
    return [(each["host"], each["peer"], each["code"]) for each in found]


def test_good_hosts_have_no_finding(client: PairClient, hosts: tuple[Host, Host]) -> None:
    code, findings = check(client)
    assert code == 0 and {finding["severity"] for finding in findings} == {"ok"}
    codes = {finding["code"] for finding in findings if finding["host"] == "one"}
    assert codes == {
        "ssh", "system", "python", "disk", "clock", "boot", "address", "hostname-loopback", "pair",
    }  # fmt: skip
    assert not list(Path(hosts[0].home).glob(".launch"))  # nothing was changed


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (f"tcp dport {PORTS.gcs} drop", "pair-port"),
        (f"tcp dport {PORTS.gcs} reject with tcp reset", "pair-port"),
        ("tcp dport 40000-60999 ct state new drop", "pair-ephemeral"),
    ],
    ids=["dropped", "rejected", "ephemeral"],
)
def test_a_firewall_is_found(
    client: PairClient, hosts: tuple[Host, Host], rule: str, code: str
) -> None:
    """One way only: from two to one."""
    hosts[0].firewall(rule)
    assert errors(client) == [("two", "one", code)]


def test_a_busy_port_is_found(client: PairClient, hosts: tuple[Host, Host]) -> None:
    listener = f"import socket, time; s = socket.create_server(('', {PORTS.node_manager}))"
    hosts[1].ssh(
        f'python3 -c "{listener}; time.sleep(60)" > /dev/null 2>&1 < /dev/null & sleep 0.3'
    )
    assert errors(client) == [("two", None, "port-taken")]
    hosts[1].inside("pkill -f '[c]reate_server'")


def test_an_unreachable_host_is_one_finding_and_the_other_is_looked_at(
    client: PairClient, hosts: tuple[Host, Host]
) -> None:
    hosts[1].firewall(f"tcp dport {hosts[1].port} reject with tcp reset")
    code, findings = check(client)
    assert code == 1
    assert [(f["host"], f["code"]) for f in findings if f["severity"] == "error"] == [
        ("two", "ssh")
    ]
    assert {"system", "disk"} <= {f["code"] for f in findings if f["host"] == "one"}


def test_an_unknown_key_is_a_finding(client: PairClient, hosts: tuple[Host, Host]) -> None:
    known = client.path / "clusters" / f"{CLUSTER}.known_hosts"
    before = known.read_text()
    known.write_text(hosts[0].known_hosts_line())
    try:
        assert errors(client) == [("two", None, "ssh")]
    finally:
        known.write_text(before)
