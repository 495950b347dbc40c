"""Hosts whose address is an IPv6 one: reached there, joined by Ray over IPv4."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import USER, Host
from reach import Connect

from launcher.errors import HostError, Untrusted
from launcher.hosts.cluster_addresses import choose_addresses
from launcher.hosts.facts import gather_facts


@pytest.fixture
def address(box: Host) -> Iterator[str]:
    """Of `box`, where an sshd answers on ports 22 and 2299."""
    found = box.add_ipv6()
    listens = [f"ListenAddress=[{found}]:{port}" for port in (22, 2299)]
    with box.other_sshd(2299, *listens):
        yield found


@pytest.mark.parametrize("port", [22, 2299])
def test_it_is_reached_and_pinned(
    ssh_home: Path, box: Host, address: str, connected: Connect, port: int
) -> None:
    place = address if port == 22 else f"[{address}]:{port}"
    folder = ssh_home / "clusters"
    folder.mkdir()
    (folder / "home.yaml").write_text(
        f"nodes:\n  - {{name: box, host: '{address}', port: {port}, user: {USER}, "
        f"key: {box.lab.key}}}\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

    def launch(*words: str) -> list[dict[str, str]]:
        done = subprocess.run(
            [sys.executable, "-m", "launcher.cli", "cluster", *words, "--json"], cwd=ssh_home,
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        rows: list[dict[str, str]] = json.loads(done.stdout)
        return rows

    assert launch("trust", "home", "--yes")[0]["address"] == place
    pinned = (folder / "home.known_hosts").read_text()
    assert pinned.split()[0] == place and pinned.split()[1:] == box.known_hosts_line().split()[1:]
    assert launch("status", "home")[0]["address"] == address
    spelled = address.replace("::", ":0:0:0:")  # as nobody writes it
    connection = connected(box, host=spelled, port=port, pinned=pinned)
    assert connection.check("echo hi", step="a test") == "hi\n"
    with pytest.raises(Untrusted) as raised:
        connected(box, host=address, port=port, pinned="")
    assert f"the host key of {place} is not known" in raised.value.message


def test_ray_takes_the_ipv4_address_of_that_interface(
    connected: Connect, box: Host, address: str
) -> None:
    pinned = box.known_hosts_line().replace(f"[{box.address}]:2222", address)
    connection = connected(box, host=address, port=22, pinned=pinned)
    box.inside("ip link add eth9 type bridge && ip addr add 198.18.254.1/24 dev eth9")
    try:
        facts = gather_facts(connection)
        assert (facts.ssh_address, facts.ssh_interface) == (address, "eth0")
        place = choose_addresses(None, {"box": facts})["box"]
        assert (place.address, place.interface) == (box.address, "eth0")
        box.inside(f"ip link del eth9 && ip addr del {box.address}/24 dev eth0")
        with pytest.raises(HostError, match="box: it has no IPv4 address") as raised:
            choose_addresses(None, {"box": gather_facts(connection)})
        assert "give it one on the network" in (raised.value.fix or "")
    finally:
        box.inside("ip link del eth9 2>/dev/null; true")
        box.inside(f"ip addr replace {box.address}/24 dev eth0")
