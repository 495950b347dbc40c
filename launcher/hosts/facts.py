"""What a host is like: one shell script that prints it, one small parser per fact.

The script needs a POSIX shell and coreutils or busybox, no Python and no rights, and changes
nothing. Sections begin with a line `@NAME`; what a host cannot tell is missing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from launcher.hosts import gpus
from launcher.hosts.gpus import GpuFacts, parse_gpus
from launcher.ssh.df import df_free_bytes
from launcher.ssh.interfaces import Interface, parse_interfaces
from launcher.ssh.protocol import Connection

Parsed = TypeVar("Parsed")

FACTS_SECONDS = 20.0

SECTION_FUNCTION = 'say() { echo "@$1"; }\n'
FACTS_SCRIPT = r"""
export LC_ALL=C PATH="$PATH:$HOME/.local/bin:/usr/local/bin:/usr/sbin:/sbin"
SAY
say clock; date +%s.%N
say system; uname -s; uname -m; uname -n
say user; id -un; echo "$HOME"
say glibc; getconf GNU_LIBC_VERSION 2>/dev/null || ldd --version 2>&1 | head -n 1
say kernel; uname -r
say cores; nproc 2>/dev/null || getconf _NPROCESSORS_ONLN
say core-kinds
for kind in core atom; do
  read -r cpus < "/sys/devices/cpu_$kind/cpus" && echo "$kind $cpus"
done 2>/dev/null
say memory; grep -E '^(MemTotal|MemAvailable):' /proc/meminfo
say disk; { df -Pk "$HOME/.launch" 2>/dev/null || df -Pk "$HOME"; } | tail -n 1
say shm; df -Pk /dev/shm 2>/dev/null | tail -n 1
say ssh; set -- ${SSH_CONNECTION:-}; echo "$*"
say ssh-interface; ip -o addr show to "${3%%%*}" 2>/dev/null
say interfaces; ip -o -4 addr show 2>/dev/null || ifconfig -a 2>/dev/null
say routes; awk '$2 == "00000000" && $8 == "00000000" {print $7, $1}' /proc/net/route 2>/dev/null
say hostname; getent ahostsv4 "$(uname -n)" 2>/dev/null | awk '{print $1}' | sort -u
say pythons
for python in python3 python3.14 python3.13 python3.12 python3.11; do
  path=$(command -v "$python") && real=$(readlink -f "$path") || continue
  case "$seen " in *" $real "*) continue ;; esac
  seen="$seen $real"
  "$python" -Ic 'import sys, venv, ssl
print(sys.executable, sys.version.split()[0], "venv")' 2>/dev/null
done
say ports; cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '$4 == "0A" {print $2}'
say listeners; ss -ltnpH 2>/dev/null | grep users:
say ephemeral; cat /proc/sys/net/ipv4/ip_local_port_range 2>/dev/null
say rays
for file in $(grep -lsE 'raylet|gcs_server|torchrun|torch.distributed.run' /proc/[0-9]*/cmdline); do
  pid=${file#/proc/}; echo "${pid%/cmdline} $(tr '\0\n' '  ' < "$file")"
done 2>/dev/null | cut -c1-400
say ready
cd "$HOME/.launch" 2>/dev/null &&
  for file in env/*/ready python/*/ready code/*/ready; do
    [ -f "$file" ] && echo "${file%/ready} $(head -n 1 "$file")"
  done
GPUS
say boot
if [ -S "/run/user/$(id -u)/systemd/private" ]; then
  if [ -e "/var/lib/systemd/linger/$(id -un)" ]; then echo systemd
  elif command -v loginctl >/dev/null; then echo linger; fi
fi
if cat /proc/[0-9]*/comm 2>/dev/null | grep -qxE 'cron|crond|fcron'; then
  crontab -l 2>&1 >/dev/null | grep -qiE 'not allowed|not found|permission' || echo crontab
fi
say logout; grep -hiE '^ *KillUserProcesses *= *(yes|true|on|1) *$' /etc/systemd/logind.conf \
  /etc/systemd/logind.conf.d/*.conf /usr/lib/systemd/logind.conf.d/*.conf 2>/dev/null
say clock; date +%s.%N
say end
""".replace("GPUS", gpus.GPU_SCRIPT.strip()).replace("SAY\n", SECTION_FUNCTION)
EPHEMERAL_PORTS = (32768, 60999)  # Linux's default


@dataclass(frozen=True)
class InstalledPython:
    """`version`: all three numbers."""

    path: str
    version: str


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """What one host says of itself."""

    system: str
    architecture: str
    """As uname -m prints it."""
    kernel: str
    hostname: str
    user: str
    home: str
    glibc: str | None
    cores: int
    """Usable ones, as the kernel counts them."""
    performance_cores: int
    """All of that kind; 0 unless the kernel knows two kinds."""
    efficiency_cores: int
    memory_bytes: int
    memory_available_bytes: int
    disk_free_bytes: int
    """On the disk of ~/.launch, or of the home folder before that exists."""
    shm_free_bytes: int | None
    clock_offset_seconds: float
    """The host's clock minus ours; the smallest offset that fits the answer."""
    ssh_address: str | None
    """Where the client reached it, as the host sees it."""
    ssh_interface: str | None = None
    """The interface that owns `ssh_address`, IPv6 too."""
    interfaces: tuple[Interface, ...]
    default_interface: str | None
    """The interface of its default route."""
    hostname_addresses: tuple[str, ...]
    pythons: tuple[InstalledPython, ...]
    """3.11 or newer that can make a virtual environment, the one called python3 first."""
    listening_ports: frozenset[int]
    listeners: Mapping[int, str]
    """Port -> "name (process id)", of processes that its user may see."""
    ephemeral_ports: tuple[int, int]
    """First and last."""
    ray_processes: tuple[str, ...]
    """Process id and command line of Ray and torchrun processes of anybody."""
    ready: Mapping[str, str]
    """Folder below ~/.launch -> the first line of the file `ready` in it."""
    gpus: GpuFacts
    boot_hooks: tuple[str, ...]
    """What can start something when it boots: systemd (its user's, which runs without a login),
    linger (which it does not do yet), crontab."""
    kills_user_processes: bool
    """Whatever a login has started ends with the login."""
    answer_seconds: float
    """How long it took to gather all this."""

    @property
    def any_python(self) -> str | None:
        """One to run a small program with: its own, else one that was sent there."""
        if self.pythons:
            return self.pythons[0].path
        sent = next((key for key in self.ready if key.startswith("python/")), None)
        return f"{self.home}/.launch/{sent}/bin/python3" if sent else None


def gather_facts(connection: Connection) -> HostFacts:
    """One command, about 0.2 s on a slow core. Raises HostError."""
    started = time.time()
    output = connection.check(FACTS_SCRIPT, step="gather facts", timeout=FACTS_SECONDS)
    return parse_facts(output, asked_at=started, answered_at=time.time())


def parse_facts(output: str, *, asked_at: float, answered_at: float) -> HostFacts:
    """`asked_at`, `answered_at`: our clock around the script."""
    sections = parse_sections(output)
    system, architecture, hostname = _lines_of(sections, "system", 3)
    user, home = _lines_of(sections, "user", 2)
    memory = dict(_memory(sections.get("memory", [])))
    kinds = dict(_key_and_value(line) for line in sections.get("core-kinds", []))
    return HostFacts(
        system=system,
        architecture=architecture,
        kernel=_first(sections, "kernel", str) or "",
        hostname=hostname,
        user=user,
        home=home,
        glibc=_first(sections, "glibc", _glibc),
        cores=_first(sections, "cores", int) or 1,
        performance_cores=_count_cpus(kinds.get("core", "")),
        efficiency_cores=_count_cpus(kinds.get("atom", "")),
        memory_bytes=memory.get("MemTotal", 0),
        memory_available_bytes=memory.get("MemAvailable", memory.get("MemTotal", 0)),
        disk_free_bytes=df_free_bytes("\n".join(sections.get("disk", []))) or 0,
        shm_free_bytes=df_free_bytes("\n".join(sections.get("shm", []))),
        clock_offset_seconds=_clock_offset(sections.get("clock", []), asked_at, answered_at),
        ssh_address=_first(sections, "ssh", lambda line: line.split()[2]),
        ssh_interface=_first(sections, "ssh-interface", _interface_name),
        interfaces=tuple(parse_interfaces(sections.get("interfaces", []))),
        default_interface=_default_interface(sections.get("routes", [])),
        hostname_addresses=tuple(sections.get("hostname", [])),
        pythons=_pythons(sections.get("pythons", [])),
        listening_ports=frozenset(
            int(line.rpartition(":")[2], 16) for line in sections.get("ports", [])
        ),
        listeners=dict(_listeners(sections.get("listeners", []))),
        ephemeral_ports=_first(sections, "ephemeral", _port_range) or EPHEMERAL_PORTS,
        ray_processes=tuple(line for line in sections.get("rays", []) if _is_ray_process(line)),
        ready=dict(_key_and_value(line) for line in sections.get("ready", [])),
        gpus=parse_gpus(sections),
        boot_hooks=tuple(sections.get("boot", [])),
        kills_user_processes=bool(sections.get("logout")),
        answer_seconds=round(answered_at - asked_at, 3),
    )


def parse_sections(output: str) -> dict[str, list[str]]:
    """Name -> its lines."""
    sections: dict[str, list[str]] = {}
    for line in output.splitlines():
        if line.startswith("@"):
            current = sections.setdefault(line[1:], [])
        elif sections and line.strip():  # before the first: what the login shell says
            current.append(line.strip())
    return sections


def _lines_of(sections: Mapping[str, list[str]], name: str, count: int) -> list[str]:
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


def _count_cpus(ranges: str) -> int:
    """0-15,20 -> 17."""
    pairs = [part.partition("-") for part in ranges.split(",") if part]
    return sum(int(last or first) - int(first) + 1 for first, _, last in pairs)


def _memory(lines: list[str]) -> Iterator[tuple[str, int]]:
    """Of /proc/meminfo: `MemTotal:  3884572 kB`."""
    for line in lines:
        name, kibibytes, *_ = line.split()
        yield name.rstrip(":"), int(kibibytes) * 1024


def _clock_offset(clocks: list[str], asked_at: float, answered_at: float) -> float:
    """The least that fits: the host's clock at the script's start is after our question, at its
    end before the answer. Nothing, where it may be right."""
    if not clocks:
        return 0.0
    max_offset = _parse_date(clocks[0])[1] - asked_at
    min_offset = _parse_date(clocks[-1])[0] - answered_at
    return round(min_offset if min_offset > 0 else min(max_offset, 0.0), 3)


def _parse_date(line: str) -> tuple[float, float]:
    """Earliest and latest time that `date +%s.%N` may mean: busybox may not know %N."""
    whole, _, fraction = line.partition(".")
    return (float(line), float(line)) if fraction.isdigit() else (int(whole), int(whole) + 1)


def _interface_name(line: str) -> str:
    """Of `ip -o addr`: `2: eth0    inet6 2001:db8::5/64 scope global ...`."""
    return line.split()[1].partition("@")[0]


def _default_interface(lines: list[str]) -> str | None:
    """Lines `metric interface`, one per default route: the lowest metric wins."""
    routes = [(int(metric), name) for metric, _, name in (line.partition(" ") for line in lines)]
    return min(routes)[1] if routes else None


def _pythons(lines: list[str]) -> tuple[InstalledPython, ...]:
    """Lines `path version venv`, the version of a build between two releases with a plus."""
    found: dict[str, InstalledPython] = {}
    for line in lines:
        fields = line.rsplit(maxsplit=2)
        if len(fields) == 3 and fields[2] == "venv" and _version_numbers(fields[1]) >= (3, 11):
            version = fields[1].rstrip("+")
            found.setdefault(version, InstalledPython(fields[0], version))
    return tuple(found.values())


def _version_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _listeners(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Of `ss -ltnpH`: `LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=755,fd=3))`."""
    for line in lines:
        if found := re.search(r':(\d+)\s+\S+\s+users:\(\("([^"]+)",pid=(\d+)', line):
            yield int(found[1]), f"{found[2]} (process {found[3]})"


def _port_range(line: str) -> tuple[int, int]:
    first, last = line.split()
    return int(first), int(last)


def _is_ray_process(line: str) -> bool:
    """`PID COMMAND...` of a raylet, a gcs_server or torchrun; not of a shell or an editor with such
    a word in its arguments, our own script among them."""
    _, program, *arguments = [*line.split(" "), ""]  # no command: it ended meanwhile
    if program.endswith(("raylet/raylet", "gcs/gcs_server", "torchrun")):
        return True
    if "python" not in program:
        return False
    return any(
        word.endswith("/torchrun") or word == "torch.distributed.run" for word in arguments[:4]
    )


def _key_and_value(line: str) -> tuple[str, str]:
    key, _, value = line.partition(" ")
    return key, value
