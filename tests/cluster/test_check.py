"""The document of `launch cluster check --json` on real hosts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import Host, Lab
from pair import CLUSTER, PairClient


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


def test_good_hosts_have_no_finding(client: PairClient, hosts: tuple[Host, Host]) -> None:
    code, findings = check(client)
    assert code == 0 and {finding["severity"] for finding in findings} == {"ok"}
    codes = {finding["code"] for finding in findings if finding["host"] == "one"}
    assert codes == {
        "ssh", "system", "python", "disk", "clock", "boot", "address", "hostname-loopback", "pair",
    }  # fmt: skip
    assert not list(Path(hosts[0].home).glob(".launch"))  # nothing was changed


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
