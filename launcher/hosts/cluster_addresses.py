"""The address and the interface of each host in its cluster's network, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from launcher.errors import HostError
from launcher.hosts.facts import HostFacts
from launcher.ssh.interfaces import Interface

# Names of interfaces that lead to no other machine, or only by a detour.
VIRTUAL = (
    "lo",
    "docker",
    "podman",
    "veth",
    "virbr",
    "lxdbr",
    "lxcbr",
    "br-",
    "cni",
    "flannel",
    "vmnet",
)
VPN = "a VPN"
# By the start of the interface's name.
INTERFACE_NOTES = {"wl": "Wi-Fi", "wg": VPN, "tailscale": VPN, "tun": VPN, "zt": VPN}


@dataclass(frozen=True)
class ClusterAddress:
    """Where the other hosts of the cluster reach one host."""

    address: str
    interface: str
    reason: str
    """Why this one was chosen."""
    note: str = ""
    """What is special about the interface (Wi-Fi, a VPN), else empty."""


def choose_addresses(
    wanted: str | None, facts: Mapping[str, HostFacts]
) -> dict[str, ClusterAddress]:
    """By node. `wanted`: the cluster file's network.interface.

    The address by which the client reached a host is one of a network that is up and routed, so
    the interface that owns it is taken; where some hosts were reached over different networks and
    share another one, that one; for a host reached through its loopback, the interface that its
    way out leads through. Raises HostError for a host without a usable address.
    """
    if not facts:
        return {}
    if wanted is not None:
        return {name: _named_interface(name, host, wanted) for name, host in facts.items()}
    reached = {name: _ssh_interface(host) for name, host in facts.items()}
    networks = {interface.network for interface in reached.values() if interface}
    if None not in reached.values() and len(networks) == 1:
        reason = "the client reaches it there, and all hosts share that network"
        return {
            name: _cluster_address(interface, reason)
            for name, interface in reached.items()
            if interface
        }
    shared = _shared_networks(facts)
    if len(shared) == 1:
        reason = "the only network that all hosts share"
        return {
            name: _cluster_address(_in_network(host, shared[0]), reason)
            for name, host in facts.items()
        }
    for first, interface in reached.items():
        if interface and interface.network in shared:
            reason = f"all hosts share that network, and the client reaches {first} there"
            return {
                name: _cluster_address(_in_network(host, interface.network), reason)
                for name, host in facts.items()
            }
    return {name: _address_alone(name, host, reached[name]) for name, host in facts.items()}


def _named_interface(name: str, host: HostFacts, wanted: str) -> ClusterAddress:
    for interface in host.interfaces:
        if interface.name == wanted:
            return _cluster_address(interface, "the cluster file says so")
    names = ", ".join(sorted({interface.name for interface in host.interfaces}))
    raise HostError(
        name,
        f"it has no interface {wanted} with an IPv4 address",
        fix=f"network.interface: one of {names}, or leave it out",
    )


def _address_alone(name: str, host: HostFacts, reached: Interface | None) -> ClusterAddress:
    if reached is not None:
        return _cluster_address(reached, "the client reaches it there")
    usable = _usable_interfaces(host)
    if len(usable) == 1:
        return _cluster_address(usable[0], "its only interface that leads to other machines")
    default = [interface for interface in usable if interface.name == host.default_interface]
    if default:
        return _cluster_address(default[0], "its way out leads through it")
    if not usable:
        message = "it has no IPv4 address that other machines reach, and Ray needs one"
        fix = f"give it one on the network of the others: `ip addr` on {name} shows what it has"
        raise HostError(name, message, fix=fix)
    found = ", ".join(f"{interface.name} {interface.address}" for interface in usable)
    raise HostError(
        name,
        f"which of its addresses do the other hosts reach? It has {found}",
        fix="name the interface in the cluster file: network: {interface: NAME}",
    )


def _ssh_interface(host: HostFacts) -> Interface | None:
    """Of the address at which the client reached it: Ray needs an IPv4 address, so for an IPv6 one
    the IPv4 address beside it."""
    usable = _usable_interfaces(host)
    reached = [interface for interface in usable if interface.address == host.ssh_address]
    beside = [interface for interface in usable if interface.name == host.ssh_interface]
    return next(iter([*reached, *beside]), None)


def _usable_interfaces(host: HostFacts) -> list[Interface]:
    """Those that may lead to other machines."""
    return [interface for interface in host.interfaces if not interface.name.startswith(VIRTUAL)]


def _shared_networks(facts: Mapping[str, HostFacts]) -> list[str]:
    networks = [
        {interface.network for interface in _usable_interfaces(host)} for host in facts.values()
    ]
    return sorted(set.intersection(*networks))


def _in_network(host: HostFacts, network: str) -> Interface:
    return next(interface for interface in host.interfaces if interface.network == network)


def _cluster_address(interface: Interface, reason: str) -> ClusterAddress:
    notes = [note for start, note in INTERFACE_NOTES.items() if interface.name.startswith(start)]
    note = notes[0] if notes else ""
    return ClusterAddress(interface.address, interface.name, reason, note)
