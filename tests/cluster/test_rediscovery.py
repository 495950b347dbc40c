"""Hosts that DHCP has given another address are found again by their host keys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import USER, Host
from reach import cluster_file, make_key

Launch = Callable[..., subprocess.CompletedProcess[str]]
NEW, NOBODYS = 77, 99  # last numbers of addresses


@pytest.fixture
def launch(ssh_home: Path) -> Launch:
    """`launch cluster VERB home`."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    environment["LAUNCH_HOME"] = str(ssh_home / "launch")

    def run(verb: str, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "launcher.cli", "cluster", verb, "home", *options],
            cwd=ssh_home, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def other(box: Host) -> Host:
    """A second host on the network of `box`."""
    return box.lab.add("other", port=box.port)


def beside(host: Host, number: int) -> str:
    """An address of its network."""
    return f"{host.address.rpartition('.')[0]}.{number}"


def write_cluster(folder: Path, hosts: dict[Host, str], keys: dict[Host, str]) -> None:
    """`hosts`: the address that the file has for each. `keys`: the key pinned for it, where that
    is not its own."""
    path = cluster_file(folder, list(hosts))
    text, pins = path.read_text(), ""
    for host in hosts:
        text = text.replace(f"name: {host.name}, host: {host.address}", f"name: {host.name}, host:")
    for host, address in hosts.items():
        text = text.replace(f"name: {host.name}, host:", f"name: {host.name}, host: {address}")
        _, kind, key = host.known_hosts_line().split()
        pins += f"[{address}]:{host.port} {keys.get(host, f'{kind} {key}')}\n"
    path.write_text(text)
    path.with_suffix(".known_hosts").write_text(pins)


def test_a_host_with_a_new_address(launch: Launch, ssh_home: Path, box: Host) -> None:
    new = beside(box, NEW)
    write_cluster(ssh_home, {box: box.address}, {})
    assert launch("status", "--json").returncode == 0  # the kernel knows the old one
    box.inside(f"ip addr del {box.address}/24 dev eth0 && ip addr add {new}/24 dev eth0")
    try:
        with box.other_sshd(2299, f"ListenAddress={new}:{box.port}"):
            done = launch("status", "--json")
            assert done.returncode == 0, done.stderr
            trust = launch("trust")
    finally:
        box.inside(f"ip addr del {new}/24 dev eth0")
        box.inside(f"ip addr replace {box.address}/24 dev eth0")
    assert json.loads(done.stdout)[0]["address"] == new
    assert done.stderr == (
        f"box: {box.address} does not answer; found by its host key at {new} "
        "(write it into the file: launch edit cluster home)\n"
    )
    assert trust.returncode == 1
    assert f"; the machine with its host key answers at {new}\n" in trust.stderr
    assert f"fix: write host: {new} for node 'box': launch edit cluster home\n" in trust.stderr


def test_two_hosts_that_have_swapped_their_addresses(
    launch: Launch, ssh_home: Path, box: Host, other: Host
) -> None:
    write_cluster(ssh_home, {box: other.address, other: box.address}, {})
    done = launch("status", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["node"]: row["address"] for row in json.loads(done.stdout)}
    assert rows == {"box": box.address, "other": other.address}
    assert f"box: {other.address} is another machine; found by its host key" in done.stderr


def test_a_host_that_is_off(launch: Launch, ssh_home: Path, box: Host, other: Host) -> None:
    """Others answer on its network, with other keys."""
    stranger = make_key(ssh_home / "stranger").with_suffix(".pub").read_text().split()
    address = beside(box, NOBODYS)
    write_cluster(ssh_home, {box: address}, {box: " ".join(stranger[:2])})
    done = launch("status")
    assert done.returncode == 1
    [error, fix] = done.stderr.splitlines()
    assert error in (
        f"error: box: no answer from {address} port 2222 within 10 s",
        f"error: box: no way to {address}: no route to host",
    )
    assert fix == (
        "fix: check that the machine is on and on the network, or correct `host:` of node 'box'"
    )


def test_a_copy_of_a_disk_is_no_host_that_has_moved(
    launch: Launch, ssh_home: Path, box: Host, other: Host
) -> None:
    """`box` is off; `other` has the same host key and its own place in the cluster."""
    key = other.known_hosts_line().split(" ", 1)[1].strip()
    write_cluster(ssh_home, {box: beside(box, NOBODYS), other: other.address}, {box: key})
    done = launch("status")
    assert done.returncode == 1
    assert "found by" not in done.stderr and "error: box: no " in done.stderr


@pytest.mark.parametrize("otherwise", ["the user's known_hosts", "an alias", "a jump host"])
def test_only_addresses_and_pins_of_the_clusters_files_count(
    launch: Launch, ssh_home: Path, box: Host, other: Host, otherwise: str
) -> None:
    address = beside(box, NOBODYS)
    write_cluster(ssh_home, {box: address}, {})
    path = ssh_home / "clusters" / "home.yaml"
    pins = path.with_suffix(".known_hosts")
    if otherwise == "an alias":
        path.write_text(path.read_text().replace(address, "alias"))
        with (ssh_home / "ssh_config").open("a") as file:
            file.write(f"Host alias\n HostName {address}\n")
    elif otherwise == "a jump host":
        gate = f"{USER}@{other.address}:{other.port}"
        path.write_text(path.read_text().replace("port: 2222", f"port: 2222, jump: '{gate}'"))
        pins.write_text(pins.read_text() + other.known_hosts_line())
        with (ssh_home / "ssh_config").open("a") as file:
            file.write(f"Host *\n IdentityFile {other.lab.key}\n")
    else:
        pins.rename(ssh_home / "known_hosts")
    done = launch("status")
    assert done.returncode == 1 and "found by" not in done.stderr
    assert done.stderr.startswith("error: box: ") and address in done.stderr
