"""What a host is like: one shell script that prints it, one small parser per fact.

The script needs a POSIX shell and coreutils, no Python and no rights. Sections begin with a line
`@NAME`; what a host cannot tell is missing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface
from typing import TypeVar

from launcher.transport.connection import Connection

Parsed = TypeVar("Parsed")

FACTS_SECONDS = 20.0

SCRIPT = r"""
export LC_ALL=C PATH="$PATH:$HOME/.local/bin:/usr/local/bin:/usr/sbin:/sbin"
say() { echo "@$1"; }
say clock; date +%s.%N
say system; uname -s; uname -m; uname -n
say user; id -un; echo "$HOME"
say glibc; getconf GNU_LIBC_VERSION 2>/dev/null || ldd --version 2>&1 | head -n 1
say cores; nproc 2>/dev/null || getconf _NPROCESSORS_ONLN
say memory; grep -E '^(MemTotal|MemAvailable):' /proc/meminfo
say disk; mkdir -p "$HOME/.launch" 2>/dev/null; df -Pk "$HOME" | tail -n 1
rmdir "$HOME/.launch" 2>/dev/null
say shm; df -Pk /dev/shm 2>/dev/null | tail -n 1
say ssh; echo "${SSH_CONNECTION:-}"
say interfaces; ip -o -4 addr show 2>/dev/null || hostname -I 2>/dev/null
say hostname; getent ahostsv4 "$(uname -n)" 2>/dev/null | awk '{print $1}' | sort -u
say pythons
for python in python3 python3.14 python3.13 python3.12 python3.11; do
  command -v "$python" >/dev/null 2>&1 || continue
  "$python" -Ic 'import sys; print(sys.executable, sys.version.split()[0], end=" ")
import venv, ssl; print("venv")' 2>/dev/null
done
say ports; cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '$4 == "0A" {print $2}'
say rays
for file in /proc/[0-9]*/cmdline; do
  line=$(tr '\0' ' ' < "$file" 2>/dev/null) || continue
  case $line in *raylet/raylet*|*gcs/gcs_server*|*torchrun*) echo "${file#/proc/} $line" ;; esac
done 2>/dev/null | cut -c1-200
say ready
cd "$HOME/.launch" 2>/dev/null &&
  for file in env/*/ready python/*/ready code/*/ready; do
    [ -f "$file" ] && echo "${file%/ready} $(head -n 1 "$file")"
  done
say gpus; ls /dev/nvidia[0-9]* /dev/kfd 2>/dev/null
say end
"""


@dataclass(frozen=True)
class Python:
    """`version`: all three numbers."""

    path: str
    version: str


@dataclass(frozen=True)
class Interface:
    """With one of its IPv4 addresses."""

    name: str
    address: str
    prefix_length: int

    @property
    def network(self) -> str:
        return str(IPv4Interface(f"{self.address}/{self.prefix_length}").network)


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """`architecture`: of uname -m. `cores`: usable ones. `clock_offset_seconds`: the host's clock
    minus ours, half the round trip taken off. `pythons`: 3.11 or newer that can make a virtual
    environment, the one called python3 first. `ssh_address`: where it was reached, as it sees it.
    `ready`: folder below ~/.launch -> the first line of the file `ready` in it. `rays`: command
    lines of Ray and torchrun processes of anybody that can be seen."""

    system: str
    architecture: str
    hostname: str
    user: str
    home: str
    glibc: str | None
    cores: int
    memory_bytes: int
    disk_free_bytes: int
    shm_free_bytes: int | None
    clock_offset_seconds: float
    ssh_address: str | None
    interfaces: tuple[Interface, ...]
    hostname_addresses: tuple[str, ...]
    pythons: tuple[Python, ...]
    listening_ports: frozenset[int]
    rays: tuple[str, ...]
    ready: Mapping[str, str]
    gpu_devices: tuple[str, ...]


def gather_facts(connection: Connection) -> HostFacts:
    """One command, about 0.2 s on a slow core. Raises HostError."""
    began = time.time()
    output = connection.check(SCRIPT, step="gather facts", timeout=FACTS_SECONDS)
    return parse_facts(output, asked_at=began, answered_at=time.time())


def parse_facts(output: str, *, asked_at: float, answered_at: float) -> HostFacts:
    """`asked_at`, `answered_at`: our clock around the script."""
    sections: dict[str, list[str]] = {}
    for line in output.splitlines():
        if line.startswith("@"):
            current = sections.setdefault(line[1:], [])
        elif sections and line.strip():
            current.append(line.strip())
    system, architecture, hostname = _padded(sections, "system", 3)
    user, home = _padded(sections, "user", 2)
    return HostFacts(
        system=system,
        architecture=architecture,
        hostname=hostname,
        user=user,
        home=home,
        glibc=_first(sections, "glibc", _glibc),
        cores=_first(sections, "cores", int) or 1,
        memory_bytes=_first(sections, "memory", lambda line: int(line.split()[1]) * 1024) or 0,
        disk_free_bytes=_first(sections, "disk", _free) or 0,
        shm_free_bytes=_first(sections, "shm", _free),
        # The clock is printed at the script's start: half a round trip after we asked, or sooner.
        clock_offset_seconds=_offset(sections, asked_at, answered_at),
        ssh_address=_first(sections, "ssh", lambda line: line.split()[2]),
        interfaces=tuple(_interfaces(sections.get("interfaces", []))),
        hostname_addresses=tuple(sections.get("hostname", [])),
        pythons=_pythons(sections.get("pythons", [])),
        listening_ports=frozenset(
            int(line.rpartition(":")[2], 16) for line in sections.get("ports", [])
        ),
        rays=tuple(sections.get("rays", [])),
        ready=dict(_pair(line) for line in sections.get("ready", [])),
        gpu_devices=tuple(sections.get("gpus", [])),
    )


def _padded(sections: Mapping[str, list[str]], name: str, count: int) -> list[str]:
    lines = sections.get(name, [])
    return [*lines, *[""] * count][:count]


def _first(
    sections: Mapping[str, list[str]], name: str, parse: Callable[[str], Parsed]
) -> Parsed | None:
    for line in sections.get(name, []):
        try:
            return parse(line)
        except (ValueError, IndexError):
            return None
    return None


def _glibc(line: str) -> str | None:
    """`glibc 2.36`, or `ldd (Debian GLIBC 2.36-9) 2.36`; musl says neither."""
    found = re.search(r"(?:^glibc |GLIBC .*\s|GNU libc\) )(\d+\.\d+)$", line)
    return found[1] if found else None


def _free(line: str) -> int:
    """Of `df -Pk`: device, blocks, used, free."""
    return int(line.split()[3]) * 1024


def _offset(sections: Mapping[str, list[str]], asked_at: float, answered_at: float) -> float:
    clock = _first(sections, "clock", float)
    if clock is None:
        return 0.0
    # It lies between the two; inside them the difference is nothing.
    if asked_at <= clock <= answered_at:
        return 0.0
    return round(clock - (asked_at if clock < asked_at else answered_at), 3)


def _interfaces(lines: list[str]) -> Iterator[Interface]:
    """Lines of `ip -o -4 addr`: `2: eth0    inet 192.168.1.5/24 brd ...`."""
    for line in lines:
        if found := re.match(r"\d+:\s+(\S+)\s+inet\s+([\d.]+)(?:\s+peer\s+[\d.]+)?/(\d+)", line):
            yield Interface(found[1].partition("@")[0], found[2], int(found[3]))


def _pythons(lines: list[str]) -> tuple[Python, ...]:
    found: dict[str, Python] = {}
    for line in lines:
        words = line.split()
        if len(words) == 3 and words[2] == "venv" and _number(words[1]) >= (3, 11):
            found.setdefault(words[1], Python(words[0], words[1]))
    return tuple(found.values())


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.partition(" ")
    return key, value
