"""The judgement of facts before anything is changed: what would go wrong, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from launcher.formatting import format_bytes, format_duration
from launcher.hosts.cluster_addresses import ClusterAddress
from launcher.hosts.facts import HostFacts
from launcher.hosts.platform import ARCHITECTURES, GLIBC

Severity = Literal["error", "warning", "ok"]

# An environment with torch for CPUs and Ray is 1.6 GB, its wheels 0.5 GB more while it is made;
# d4 keeps two checkpoints of 0.43 GB.
DISK_NEEDED_BYTES = 3 * 10**9
DISK_GOOD_BYTES = 6 * 10**9
SHM_NEEDED_BYTES = 128 * 2**20  # Ray's object store has 100 MiB
# PSS of Ray and a d4 worker, seen on two hosts: 2.5 GB on the head, 0.9 GB on the other.
MEMORY_GOOD_BYTES = 3 * 10**9
# Events and logs of several hosts are read side by side; checkpoints go by steps, not by clocks.
CLOCK_WARNING_SECONDS = 2.0
CLOCK_ERROR_SECONDS = 300.0

BOOT_HOOKS = {
    "systemd": "a service of its user's systemd",
    "linger": "a service of its user's systemd (which `up` asks to run without a login: linger)",
    "crontab": "a line of its user's crontab",
}


@dataclass(frozen=True)
class Finding:
    """`code`: a stable word. `peer`: the other host, where it is about two."""

    severity: Severity
    host: str
    code: str
    message: str
    fix: str | None = None
    peer: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def judge_host(
    name: str,
    host: HostFacts,
    address: ClusterAddress | None,
    ports: tuple[int, ...],
    *,
    is_up: bool,
) -> Iterator[Finding]:
    """`ports`: those that Ray needs there. `is_up`: our own cluster is up and holds them."""
    yield _system(name, host)
    yield _python(name, host)
    yield _disk(name, host)
    if (finding := _shm(name, host)) is not None:
        yield finding
    if not is_up and host.memory_available_bytes < MEMORY_GOOD_BYTES:
        yield _memory(name, host)
    yield _clock(name, host)
    yield _boot(name, host)
    if address is not None:
        note = f" ({address.note})" if address.note else ""
        message = f"{address.address} on {address.interface}{note}: {address.reason}"
        yield Finding("ok", name, "address", message)
    if "microsoft" in host.kernel.lower():
        yield _wsl(name)
    loopback = [text for text in host.hostname_addresses if text.startswith("127.")]
    if loopback:
        yield Finding(
            "ok",
            name,
            "hostname-loopback",
            f"its name {host.hostname} means {loopback[0]}, which no other host can reach; "
            "we name the interface instead (GLOO_SOCKET_IFNAME)",
        )
    if not is_up and (taken := sorted(set(ports) & host.listening_ports)):
        yield taken_ports_finding(name, taken, host.listeners)
    if host.ray_processes and not is_up:
        count = len(host.ray_processes)
        message = (
            f"{count} process{'es' * (count > 1)} of another Ray, cluster or torchrun: left alone"
        )
        yield Finding("ok", name, "ray-foreign", message)


def taken_ports_finding(
    name: str, ports: Sequence[int], listeners: Mapping[int, str] | None = None
) -> Finding:
    """`listeners`: port -> the program that holds it, where that can be seen."""
    several = len(ports) > 1
    seen = dict.fromkeys(listeners[port] for port in ports if listeners and port in listeners)
    subject = f"ports {', '.join(map(str, ports))} are" if several else f"port {ports[0]} is"
    return Finding(
        "error",
        name,
        "port-taken",
        f"{subject} taken by {', '.join(seen) or 'another program'}",
        fix=f"end it (`ss -ltnp | grep :{ports[0]}` on {name} shows it), or give the cluster "
        "another name: its ports follow from that",
    )


def _boot(name: str, host: HostFacts) -> Finding:
    fix = f"let its user's services run without a login: sudo loginctl enable-linger {host.user}"
    if host.kills_user_processes and not {"systemd", "linger"} & set(host.boot_hooks):
        message = "KillUserProcesses=yes in its logind.conf: Ray would end when the client leaves"
        return Finding("error", name, "logout", message, fix)
    for hook, starter in BOOT_HOOKS.items():
        if hook in host.boot_hooks:
            return Finding("ok", name, "boot", f"after a reboot {starter} starts Ray again")
    message = "nothing can start Ray after a reboot: it rejoins at the next client command"
    return Finding("warning", name, "boot", message, f"{fix}   (or install cron)")


def _system(name: str, host: HostFacts) -> Finding:
    cores = f"{host.cores} core{'s' * (host.cores > 1)}"
    if host.efficiency_cores:
        kinds = f"{host.performance_cores} performance, {host.efficiency_cores} efficiency"
        cores += f" ({kinds})"
    message = f"{host.system} {host.architecture}, {cores}, glibc {host.glibc or '-'}"
    if host.system != "Linux" or host.architecture not in ARCHITECTURES:
        fix = "use a Linux machine of x86_64 or aarch64"
        return Finding("error", name, "system", f"{message}: Ray and torch do not run there", fix)
    if host.glibc is None:
        fix = "use a distribution with glibc, such as Debian, Ubuntu or Fedora"
        return Finding("error", name, "system", f"{message}: torch and Ray need one", fix)
    if _numbers(host.glibc) < GLIBC:
        fix = "use a distribution with glibc 2.28 or newer (Debian 10, Ubuntu 20.04, RHEL 8)"
        return Finding("error", name, "system", f"{message}: too old for torch", fix)
    return Finding("ok", name, "system", message)


def _wsl(name: str) -> Finding:
    return Finding(
        "warning",
        name,
        "wsl",
        "it is a Linux in Windows (WSL): by itself no other machine reaches its addresses",
        fix="write networkingMode=mirrored below [wsl2] in %USERPROFILE%\\.wslconfig, and let "
        "Windows' firewall pass it",
    )


def _python(name: str, host: HostFacts) -> Finding:
    if host.pythons:
        versions = ", ".join(python.version for python in host.pythons)
        return Finding("ok", name, "python", f"Python {versions}")
    return Finding(
        "warning",
        name,
        "python",
        "no Python 3.11 or newer that can make environments: one is sent, where it can be had",
    )


def _disk(name: str, host: HostFacts) -> Finding:
    free = f"{format_bytes(host.disk_free_bytes)} free in {host.home}"
    installed = any(key.startswith("env/") for key in host.ready)
    if host.disk_free_bytes < DISK_NEEDED_BYTES and not installed:
        needed = format_bytes(DISK_NEEDED_BYTES)
        return Finding("error", name, "disk", f"{free}: it takes {needed}", "make room there")
    if host.disk_free_bytes < (DISK_NEEDED_BYTES if installed else DISK_GOOD_BYTES):
        return Finding("warning", name, "disk", f"{free}: room for small models only")
    return Finding("ok", name, "disk", free)


def _shm(name: str, host: HostFacts) -> Finding | None:
    if host.shm_free_bytes is None or host.shm_free_bytes >= SHM_NEEDED_BYTES:
        return None
    return Finding(
        "error",
        name,
        "shm",
        f"{format_bytes(host.shm_free_bytes)} free in /dev/shm, Ray needs "
        f"{format_bytes(SHM_NEEDED_BYTES)}",
        fix="remove what lies in /dev/shm, or enlarge it: mount -o remount,size=1G /dev/shm",
    )


def _memory(name: str, host: HostFacts) -> Finding:
    return Finding(
        "warning",
        name,
        "memory",
        f"{format_bytes(host.memory_available_bytes)} of {format_bytes(host.memory_bytes)} of "
        "memory free: Ray and the smallest model take 2.5 GB on the head, 0.9 GB on other hosts",
        fix="end what else runs there",
    )


def _clock(name: str, host: HostFacts) -> Finding:
    offset = host.clock_offset_seconds
    message = (
        f"its clock is {format_duration(abs(offset))} {'ahead of' if offset > 0 else 'behind'} ours"
    )
    fix = "set it: timedatectl set-ntp true"
    if abs(offset) > CLOCK_ERROR_SECONDS:
        return Finding("error", name, "clock", f"{message}: downloads and logs go wrong", fix)
    if abs(offset) > CLOCK_WARNING_SECONDS:
        message += ": events and logs of several hosts are read side by side"
        return Finding("warning", name, "clock", message, fix)
    return Finding("ok", name, "clock", "its clock is right")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
