"""The judgement of facts before anything is changed: what would go wrong, and how to mend it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from launcher.hosts.facts import HostFacts
from launcher.hosts.network import Place
from launcher.hosts.pairs import Link, PairResults
from launcher.provision.platform import ARCHITECTURES, GLIBC

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

# Why a port on which the peer did listen is not reached.
REJECTED = "a firewall in between rejects it"
OTHER = "another program or host answers there"


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
    name: str, host: HostFacts, place: Place | None, ports: tuple[int, ...], *, ours: bool
) -> Iterator[Finding]:
    """`ports`: those that Ray needs there. `ours`: our own cluster is up and holds them."""
    yield _system(name, host)
    yield _python(name, host)
    yield _disk(name, host)
    if (finding := _shm(name, host)) is not None:
        yield finding
    if not ours and host.memory_available_bytes < MEMORY_GOOD_BYTES:
        yield _memory(name, host)
    yield _clock(name, host)
    if place is not None:
        note = f" ({place.note})" if place.note else ""
        message = f"{place.address} on {place.interface}{note}: {place.reason}"
        yield Finding("ok", name, "address", message)
    if "microsoft" in host.kernel.lower():
        yield _wsl(name)
    loopback = [each for each in host.hostname_addresses if each.startswith("127.")]
    if loopback:
        yield Finding(
            "ok",
            name,
            "hostname-loopback",
            f"its name {host.hostname} means {loopback[0]}, which no other host can reach; "
            "we name the interface instead (GLOO_SOCKET_IFNAME)",
        )
    if not ours and (taken := sorted(set(ports) & host.listening_ports)):
        yield taken_ports(name, taken, host.listeners)
    if host.rays and not ours:
        count = len(host.rays)
        message = (
            f"{count} process{'es' * (count > 1)} of another Ray, cluster or torchrun: left alone"
        )
        yield Finding("ok", name, "ray-foreign", message)


def judge_pairs(results: PairResults) -> Iterator[Finding]:
    for error in results.failed:
        message = error.message.removeprefix(f"{error.host}: ")
        yield Finding("error", error.host, "pair-failed", message, error.fix)
    for name in results.skipped:
        yield Finding(
            "warning", name, "pair-skipped", "without a Python there, its ports are not tried"
        )
    for name, ports in results.taken.items():
        yield taken_ports(name, ports)
    taken = {(name, port) for name, ports in results.taken.items() for port in ports}
    broken: dict[tuple[str, str], list[Link]] = defaultdict(list)
    best: dict[tuple[str, str], float] = {}
    for link in results.links:
        pair = link.host, link.peer
        if link.what == "ok":
            best[pair] = min(best.get(pair, link.milliseconds), link.milliseconds)
        elif (link.peer, link.port) not in taken:
            broken[pair].append(link)
    for (host, peer), links in broken.items():
        yield _broken(host, peer, links)
    for (host, peer), milliseconds in best.items():
        if (host, peer) not in broken:
            message = f"reaches {peer} on every port, first answer after {milliseconds:.2f} ms"
            yield Finding("ok", host, "pair", message, peer=peer)


def judge_places(places: Mapping[str, Place]) -> Iterator[Finding]:
    """Two names of one machine, or machines that hide behind one address each."""
    owners: dict[str, str] = {}
    for name, place in places.items():
        owner = owners.setdefault(place.address, name)
        if owner != name:
            yield Finding(
                "error",
                name,
                "address",
                f"{place.address} is {owner}'s address too",
                fix="list a machine once; where both have a NAT of their own, name the interface "
                "by which they reach each other: network: {interface: NAME}",
                peer=owner,
            )


def taken_ports(
    name: str, ports: Sequence[int], listeners: Mapping[int, str] | None = None
) -> Finding:
    """`listeners`: port -> the program that holds it, where that can be seen."""
    several = len(ports) > 1
    seen = dict.fromkeys(listeners[port] for port in ports if listeners and port in listeners)
    words = f"ports {', '.join(map(str, ports))} are" if several else f"port {ports[0]} is"
    return Finding(
        "error",
        name,
        "port-taken",
        f"{words} taken by {', '.join(seen) or 'another program'}",
        fix=f"end it (`ss -ltnp | grep :{ports[0]}` on {name} shows it), or give the cluster "
        "another name: its ports follow from that",
    )


def _broken(host: str, peer: str, links: list[Link]) -> Finding:
    fixed = sorted(link.port for link in links if link.fixed)
    what = {link.what for link in links}
    dropped = what == {"timeout"}
    how = "no answer: a firewall drops it" if dropped else ", ".join(sorted(what))
    why = "" if dropped else f": {OTHER if 'other' in what else REJECTED}"
    where = f"ports {', '.join(map(str, fixed))}" if fixed else "an ephemeral port"
    if fixed and len(fixed) < len(links):
        where += " and an ephemeral one"
    return Finding(
        "error",
        host,
        "pair-port" if fixed else "pair-ephemeral",
        f"cannot reach {peer} on {where} ({how}){why}",
        fix=f"on {peer}, allow all TCP from {host}: Ray needs the ports of the cluster, gloo "
        "ephemeral ones (32768 to 60999)",
        peer=peer,
    )


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
    free = f"{host.disk_free_bytes / 1e9:.1f} GB free in {host.home}"
    installed = any(key.startswith("env/") for key in host.ready)
    if host.disk_free_bytes < DISK_NEEDED_BYTES and not installed:
        needed = f"{DISK_NEEDED_BYTES / 1e9:.0f} GB"
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
        f"{host.shm_free_bytes / 2**20:.0f} MiB free in /dev/shm, Ray needs 128",
        fix="remove what lies in /dev/shm, or enlarge it: mount -o remount,size=1G /dev/shm",
    )


def _memory(name: str, host: HostFacts) -> Finding:
    return Finding(
        "warning",
        name,
        "memory",
        f"{host.memory_available_bytes / 1e9:.1f} of {host.memory_bytes / 1e9:.1f} GB of memory "
        "free: Ray and the smallest model take 2.5 GB on the head, 0.9 GB on other hosts",
        fix="end what else runs there",
    )


def _clock(name: str, host: HostFacts) -> Finding:
    offset = host.clock_offset_seconds
    words = f"its clock is {abs(offset):.1f} s {'ahead of' if offset > 0 else 'behind'} ours"
    fix = "set it: timedatectl set-ntp true"
    if abs(offset) > CLOCK_ERROR_SECONDS:
        return Finding("error", name, "clock", f"{words}: downloads and logs go wrong", fix)
    if abs(offset) > CLOCK_WARNING_SECONDS:
        words += ": events and logs of several hosts are read side by side"
        return Finding("warning", name, "clock", words, fix)
    return Finding("ok", name, "clock", "its clock is right")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
