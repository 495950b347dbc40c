"""What befalls real hosts, what a user then reads and for how long: the table in SITUATIONS.md.

`SITUATIONS=tests/cluster/SITUATIONS.md pytest tests/cluster` writes it anew.
"""

from __future__ import annotations

import platform
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from lab import Host, Lab
from pair import CLUSTER, PairClient

CHECK = ("cluster", "check", CLUSTER)
HEAD = """\
# What users of real hosts run into, and what they read

Written by the tests that produce it, on {machine}. Addresses are those of
the test hosts; seconds are of one run on a busy machine, from Enter to the prompt.

| situation | command | exit | what the user reads | seconds |
|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Situation:
    """`says`: a pattern that what the user reads has to match. `make`: brings it about."""

    name: str
    says: str
    code: int
    command: Sequence[str]
    make: Callable[[Desk], object]


SITUATIONS: list[Situation] = []


def situation(
    name: str, says: str, *, code: int = 1, command: Sequence[str] = CHECK
) -> Callable[[Callable[[Desk], object]], Callable[[Desk], object]]:
    def add(make: Callable[[Desk], object]) -> Callable[[Desk], object]:
        SITUATIONS.append(Situation(name, says, code, command, make))
        return make

    return add


@dataclass
class Desk:
    """A client and two hosts; what is done to them is undone when `undo` closes."""

    client: PairClient
    lab: Lab
    one: Host
    two: Host
    undo: ExitStack = field(default_factory=ExitStack)

    @property
    def file(self) -> Path:
        return self.client.path / "clusters" / f"{CLUSTER}.yaml"

    @property
    def pins(self) -> Path:
        return self.client.path / "clusters" / f"{CLUSTER}.known_hosts"

    @property
    def ssh_config(self) -> Path:
        return self.client.path / "ssh_config"

    def write(self, path: Path, text: str) -> None:
        """And what it said before, later."""
        before = path.read_text()
        self.undo.callback(path.write_text, before)
        path.write_text(text)

    def node(self, machine: Host, **changes: str) -> None:
        """Other keys of its line in the cluster file."""
        lines = self.file.read_text().splitlines(keepends=True)
        number = next(i for i, line in enumerate(lines) if f"name: {machine.name}," in line)
        for key, value in changes.items():
            lines[number] = re.sub(rf"{key}: [^,}}]+(, )?", "", lines[number])
            lines[number] = lines[number].replace("{", f"{{{key}: {value}, ", 1)
        self.write(self.file, "".join(lines))

    def sshd(self, host: Host, *lines: str) -> None:
        """Its server begins anew with these settings before all others."""
        config = host.disk / "etc" / "sshd_config"
        self.undo.callback(host.power_cycle)
        self.write(config, "\n".join((*lines, config.read_text())))
        host.power_cycle()

    def inside(self, host: Host, command: str, afterwards: str) -> None:
        """As root on the host, now and then."""
        host.inside(command)
        self.undo.callback(host.inside, afterwards)

    def card(self, host: Host, name: str, address: str, *, plugged: bool = False) -> None:
        """A second network card. `plugged`: into the network of the first one."""
        cable = f"{host.cable}b"
        inside = f"ip -n {host.namespace}"
        _each(
            f"ip link add {cable} type veth peer name {name} netns {host.namespace}",
            f"ip link set {cable} up" + f" master {host.lab.bridge}" * plugged,
            f"{inside} addr add {address} dev {name}",
            f"{inside} link set {name} up",
        )
        # Linux answers for all its addresses on every card: what others have heard goes too.
        forget = [f"ip neigh flush dev {host.lab.bridge}"]
        forget += [f"ip -n {each.namespace} neigh flush dev eth0" for each in host.lab.hosts]
        self.undo.callback(_each, f"ip link del {cable}", *forget)

    def firewall(self, host: Host, rule: str) -> None:
        host.firewall(rule)
        self.undo.callback(host.no_firewall)

    def off(self, host: Host) -> None:
        host.cut_power()
        self.undo.callback(host.boot)


@dataclass
class Seen:
    """Rows of the table."""

    rows: list[str] = field(default_factory=list)

    def add(
        self,
        name: str,
        command: Sequence[str],
        code: int,
        output: str,
        seconds: float,
        says: str = "",
    ) -> None:
        words = "<br>".join(_told(output, says)).replace("|", "\\|")
        typed = f"launch {' '.join(command)}"
        self.rows.append(f"| {name} | `{typed}` | {code} | {words} | {seconds:.1f} |\n")

    def run(self, desk: Desk, what: Situation) -> str:
        """What the user reads."""
        done = self.launch(desk.client, what.name, *what.command, says=what.says)
        assert done.returncode == what.code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def launch(
        self, client: PairClient, name: str, *command: str, says: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run it and add the row. `says`: what to show of a check that has nothing to find."""
        began = time.monotonic()
        done = client.launch(*command)
        seconds = time.monotonic() - began
        assert "Traceback" not in done.stderr, done.stderr
        output = (done.stdout + done.stderr).replace(str(client.path), "~")
        output = output.replace(str(client.hosts[0].lab.folder), "~/.ssh")
        output = output.replace(f"{Path(__file__).parents[2]}/", "")  # shipped files
        self.add(name, command, done.returncode, output, seconds, says)
        return done

    def write(self, path: Path) -> None:
        cores = f"one {platform.machine()} core"
        machine = f"two test hosts of {cores} each (Debian's sshd, one machine)"
        path.write_text(HEAD.format(machine=machine) + "".join(self.rows))


def _each(*commands: str) -> None:
    for command in commands:
        subprocess.run(command.split(), check=True)


def _told(output: str, says: str) -> list[str]:
    """Of a check what is not well, else what was expected of it; of anything else all lines."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    findings = [line for line in lines if line.lstrip()[:1] in ("✗", "!")]
    if not findings:
        well = [line for line in lines if line.lstrip().startswith("✓")]
        return [_plain(line) for line in well if re.search(says, line)] or list(map(_plain, lines))
    found, keep, host = [], False, ""
    for line in lines:
        if not line.startswith(" "):
            host, keep = line, False
        elif line.lstrip()[:1] in ("✓", "✗", "!"):
            keep = line in findings
            if keep:
                found.append(_plain(f"{host}: {line.strip()}"))
        elif keep:  # more of it, or its fix
            found.append(_plain(line))
    return found


def _plain(line: str) -> str:
    return re.sub(r"\s{2,}", " ", line.strip()).replace("✗ ", "").replace("! ", "")
