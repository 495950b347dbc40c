"""A client with a cluster file for two test hosts, and what can be seen of its runs there."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab import USER, Host
from running import Home, Run

CLUSTER = "pair"
LONG = ("--steps", "100000", "--set", "checkpoint.every_steps=100000")  # until it is stopped


class PairClient(Home):
    """A LAUNCH_HOME whose cluster `pair` is the lab's hosts."""

    def __init__(self, path: Path, hosts: Sequence[Host]) -> None:
        super().__init__(path)
        self.hosts = list(hosts)
        (path / "ssh_config").write_text("IdentityAgent none\nIdentityFile none\n")
        self.environment["LAUNCH_SSH_CONFIG"] = str(path / "ssh_config")
        folder = path / "clusters"
        folder.mkdir()
        nodes = "".join(
            f"  - {{name: {host.name}, host: {host.address}, user: {USER}, key: {host.lab.key}}}\n"
            for host in hosts
        )
        (folder / f"{CLUSTER}.yaml").write_text(f"nodes:\n{nodes}")
        lines = "".join(host.known_hosts_line() for host in hosts)
        (folder / f"{CLUSTER}.known_hosts").write_text(lines)

    def run(self, name: str) -> Run:
        """Its mirror here."""
        return Run(self.path / "clusters" / CLUSTER / "runs" / name)

    def train(self, name: str, *arguments: str, timeout: float = 300) -> dict[str, Any]:
        """`launch recipe tiny` on the cluster, to the end; its summary."""
        done = self.launch(
            "recipe", "tiny", "--cluster", CLUSTER, "--name", name, "--json", *arguments,
            timeout=timeout,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        summary: dict[str, Any] = json.loads(done.stdout)
        return summary

    def cluster(self, verb: str, *arguments: str, timeout: float = 120) -> Any:
        """The JSON of a `launch cluster` command that has to succeed."""
        done = self.launch("cluster", verb, CLUSTER, *arguments, "--json", timeout=timeout)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


class HostRun(Run):
    """A run's folder on a host."""

    def __init__(self, host: Host, name: str) -> None:
        super().__init__(host.home / ".launch" / "clusters" / CLUSTER / "runs" / name)


def printed_steps(output: str) -> list[int]:
    """Of the lines of `launch logs`."""
    lines = [line for line in output.splitlines() if line.startswith("step ") and "loss" in line]
    return [int(line.split()[1].partition("/")[0].replace(",", "")) for line in lines]


def listing(host: Host) -> dict[str, str]:
    """Everything in the home of the host's user, in its /tmp and among crontabs: path -> hash."""
    return {
        str(path.relative_to(host.disk)): _hash(path)
        for folder in (host.home, host.disk / "tmp", host.disk / "crontabs")
        for path in sorted(folder.rglob("*"))
    }


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "a folder"


def wait(condition: Any, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.1)
