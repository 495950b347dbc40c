"""Reaching test hosts as a cluster's file and the user's ssh configuration would."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lab import USER, Host

from launcher.config.cluster import Node
from launcher.transport.ssh import SshConnection
from launcher.transport.target import Target, resolve

Connect = Callable[..., SshConnection]  # (host, pinned=, **changes of the node)


def target(machine: Host, folder: Path, *, pinned: str | None = None, **changes: Any) -> Target:
    """`pinned`: what the known_hosts of a cluster `home` says; by default the truth."""
    pins = folder / "home.known_hosts"
    pins.write_text(machine.known_hosts_line() if pinned is None else pinned)
    node = {"name": machine.name, "host": machine.address, "user": USER, "port": machine.port}
    node["key"] = str(machine.lab.key)
    return resolve(Node(**node | changes), pins)


def cluster_file(folder: Path, hosts: Sequence[Host], **users: str) -> Path:
    """clusters/home.yaml with these hosts. `users`: node -> another user than the lab's."""
    path = folder / "clusters" / "home.yaml"
    path.parent.mkdir(exist_ok=True)
    nodes = [
        f"  - {{name: {host.name}, host: {host.address}, port: {host.port}, "
        f"user: {users.get(host.name, USER)}, key: {host.lab.key}}}\n"
        for host in hosts
    ]
    path.write_text(f"nodes:\n{''.join(nodes)}")
    return path


def fingerprint(host: Host) -> str:
    key = host.disk / "etc" / "ssh_host_ed25519_key.pub"
    return subprocess.check_output(["ssh-keygen", "-lf", key], text=True).split()[1]


def make_key(path: Path, passphrase: str = "") -> Path:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", path.name, "-f", path],
        check=True,
    )
    return path


def add_to(agent: Path, key: Path) -> None:
    environment = {**os.environ, "SSH_AUTH_SOCK": str(agent)}
    subprocess.run(["ssh-add", "-q", str(key)], env=environment, check=True)
