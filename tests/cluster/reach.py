"""Reaching test hosts as a cluster's file and the user's ssh configuration would."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import USER, Host

from launcher.config.node import Node
from launcher.ssh.connection import SshConnection
from launcher.ssh.target import SshTarget, resolve_target

Connect = Callable[..., SshConnection]  # (host, pinned=, **changes of the node)


def target(machine: Host, folder: Path, *, pinned: str | None = None, **changes: Any) -> SshTarget:
    """`pinned`: what the known_hosts of a cluster `home` says; by default the truth."""
    pins = folder / "home.known_hosts"
    pins.write_text(machine.known_hosts_line() if pinned is None else pinned)
    node = {"name": machine.name, "host": machine.address, "user": USER, "port": machine.port}
    node["key"] = str(machine.lab.key)
    return resolve_target(Node(**node | changes), pins)


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


@contextmanager
def running_agent(key: Path, passphrase: str) -> Iterator[Path]:
    """The socket of one that holds this key."""
    folder = Path(tempfile.mkdtemp(prefix="agent-"))
    socket_path, answer = folder / "socket", folder / "answer"
    answer.write_text(f"#!/bin/sh\necho '{passphrase}'\n")
    answer.chmod(0o700)
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(socket_path)], stdout=subprocess.DEVNULL
    )
    try:
        while not socket_path.exists():
            time.sleep(0.01)
        asks = {"SSH_ASKPASS": str(answer), "SSH_ASKPASS_REQUIRE": "force"}
        subprocess.run(
            ["ssh-add", "-q", str(key)], check=True, stdin=subprocess.DEVNULL,
            env={**os.environ, "SSH_AUTH_SOCK": str(socket_path), **asks},
        )  # fmt: skip
        yield socket_path
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def add_to(agent: Path, key: Path) -> None:
    environment = {**os.environ, "SSH_AUTH_SOCK": str(agent)}
    subprocess.run(["ssh-add", "-q", str(key)], env=environment, check=True)
