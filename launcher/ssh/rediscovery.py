"""A host whose address has changed (DHCP), found again by the host key that is pinned for it.

Looked for only where that is polite and safe: a private IPv4 address, written in the cluster file
itself, on a small network of this machine. Whoever answers there is asked for its host key and
nothing more.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from launcher.errors import HostError, KeyChanged, Unreachable
from launcher.ssh.connect import open_login, open_transport
from launcher.ssh.host_transport import HostTransport, hang_up
from launcher.ssh.interfaces import parse_interfaces
from launcher.ssh.known_hosts import HostKey, pinned_keys
from launcher.ssh.prompts import print_notice, run_in_threads
from launcher.ssh.target import SshTarget

PRIVATE = [
    IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15")
]
MIN_PREFIX_LENGTH = 22  # 1,022 addresses
ADDRESSES_AT_ONCE = 128  # macOS gives a process 256 files
TCP_PROBE_SECONDS = 0.7  # ARP and TCP on a LAN take 1 ms, on Wi-Fi that saves power 0.3 s
KEY_SECONDS = 3.0
KEYS_AT_ONCE = 16
SEARCH_AGAIN_SECONDS = 60.0  # a host that is off is not looked for at every attempt to reach it
INTERFACES = 'PATH="$PATH:/usr/sbin:/sbin"; ip -o -4 addr show 2>/dev/null || ifconfig -a'
NEIGHBOURS = Path("/proc/net/arp")

PinnedHost = tuple[Path, str]  # the cluster's known_hosts file and the host's name in it

_probe_lock = threading.Lock()
_found: dict[PinnedHost, SshTarget] = {}  # in this process
_not_found: dict[PinnedHost, float] = {}  # when it was not found last


def log_in_or_rediscover(target: SshTarget, timeout: float) -> tuple[SshTarget, HostTransport]:
    """At its address; where another machine or none answers there, wherever its host key does.

    Says so on stderr then. Raises what `open_login` does: what was wrong at its own address where
    it is not found.
    """
    host = (target.cluster_known_hosts, target.known_host_name)
    if known := _found.get(host):
        try:
            return known, open_login(known, timeout)
        except (Unreachable, KeyChanged):
            _found.pop(host, None)  # it has moved again, perhaps back
    try:
        return target, open_login(target, timeout)
    except (Unreachable, KeyChanged) as error:
        found = rediscover(target)
        if found is None:
            raise
        changed = isinstance(error, KeyChanged)
        problem = "is another machine" if changed else "does not answer"
        print_notice(
            f"{target.name}: {target.address} {problem}; found by its host key at {found.address} "
            f"(write it into the file: launch edit cluster {target.cluster})"
        )
    transport = open_login(found, timeout)
    _found[host] = found
    return found, transport


def with_new_address(error: Unreachable, target: SshTarget) -> Unreachable:
    """The same error, with the address at which the host answers now, if it does."""
    found = rediscover(target)
    if found is None:
        return error
    reason = error.message.removeprefix(f"{target.name}: ")
    message = f"{reason}; the machine with its host key answers at {found.address}"
    fix = f"write host: {found.address} for node {target.name!r}: "
    return Unreachable(target.name, message, fix=f"{fix}launch edit cluster {target.cluster}")


def rediscover(target: SshTarget) -> SshTarget | None:
    """Where it answers now, to be verified by the pin of its old address. At most about 2 s on a
    network of 254 addresses."""
    host = (target.cluster_known_hosts, target.known_host_name)
    keys = pinned_keys(target)
    network = _network_to_search(target) if keys else None
    last_search = _not_found.get(host, -SEARCH_AGAIN_SECONDS)
    if network is None or time.monotonic() - last_search < SEARCH_AGAIN_SECONDS:
        return None
    candidates = [text for address in network.hosts() if (text := str(address)) != target.address]
    first = sorted(set(_neighbours()) & set(candidates))
    for addresses in (first, [address for address in candidates if address not in first]):
        for start in range(0, len(addresses), ADDRESSES_AT_ONCE):
            with _probe_lock:
                batch = addresses[start : start + ADDRESSES_AT_ONCE]
                answering = list(_probe_tcp(batch, target.port))
            if found := _with_key(target, answering, keys):
                return found
    _not_found[host] = time.monotonic()
    return None


def _network_to_search(target: SshTarget) -> IPv4Network | None:
    """None where the host must not be looked for."""
    if target.jump or target.proxy_command or target.node_host != target.address:
        return None
    try:
        address = IPv4Address(target.address)
    except ValueError:
        return None
    if not any(address in network for network in PRIVATE):
        return None
    for network in _local_networks():
        if address in network and network.prefixlen >= MIN_PREFIX_LENGTH:
            return network
    return None


def _local_networks() -> list[IPv4Network]:
    """Nothing where no program tells: on Windows."""
    try:
        done = subprocess.run(["sh", "-c", INTERFACES], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = parse_interfaces(line.strip() for line in done.stdout.splitlines())
    return [IPv4Interface(f"{item.address}/{item.prefix_length}").network for item in found]


def _neighbours() -> list[str]:
    """Addresses that this machine has spoken with lately, where the kernel tells."""
    try:
        lines = NEIGHBOURS.read_text().splitlines()[1:]
    except OSError:
        return []
    rows = [line.split() for line in lines]
    return [row[0] for row in rows if int(row[2], 16) & 2]  # complete: its answer has come


def _probe_tcp(addresses: Sequence[str], port: int) -> Iterator[str]:
    """Those where something listens."""
    with contextlib.ExitStack() as sockets, selectors.DefaultSelector() as selector:
        for address in addresses:
            probe = sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            probe.setblocking(False)
            if probe.connect_ex((address, port)) in (0, errno.EINPROGRESS):
                selector.register(probe, selectors.EVENT_WRITE, address)
        end = time.monotonic() + TCP_PROBE_SECONDS
        while selector.get_map() and (left := end - time.monotonic()) > 0:
            for ready, _ in selector.select(left):
                selector.unregister(ready.fileobj)
                assert isinstance(ready.fileobj, socket.socket)
                if not ready.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    yield str(ready.data)


def _with_key(
    target: SshTarget, addresses: Sequence[str], keys: Sequence[HostKey]
) -> SshTarget | None:
    """Of these, the one that shows one of the keys."""
    found: list[SshTarget] = []

    def ask(address: str) -> None:
        moved = replace(target, address=address, host_key_alias=target.known_host_name)
        with contextlib.suppress(HostError):
            transport, key = open_transport(moved, KEY_SECONDS)
            hang_up(transport)
            if key in keys:
                found.append(moved)

    for start in range(0, len(addresses), KEYS_AT_ONCE):
        run_in_threads(
            [partial(ask, address) for address in addresses[start : start + KEYS_AT_ONCE]]
        )
        if found:
            return found[0]
    return None
