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
NOTES = {"wl": "Wi-Fi", "wg": "a VPN", "tailscale": "a VPN", "tun": "a VPN", "zt": "a VPN"}


@dataclass(frozen=True)
class ClusterAddress:
    """`note`: what is special about the interface (Wi-Fi, a VPN), else empty."""

    address: str
    interface: str
    reason: str
    note: str = ""


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
        return {name: _named(name, host, wanted) for name, host in facts.items()}
    reached = {name: _owner(host) for name, host in facts.items()}
    networks = {interface.network for interface in reached.values() if interface}
    if None not in reached.values() and len(networks) == 1:
        reason = "the client reaches it there, and all hosts share that network"
        return {name: _place(each, reason) for name, each in reached.items() if each}
    shared = _shared_networks(facts)
    if len(shared) == 1:
        reason = "the only network that all hosts share"
        return {name: _place(_in_network(host, shared[0]), reason) for name, host in facts.items()}
    for first, interface in reached.items():
        if interface and interface.network in shared:
            reason = f"all hosts share that network, and the client reaches {first} there"
            return {
                name: _place(_in_network(host, interface.network), reason)
                for name, host in facts.items()
            }
    return {name: _alone(name, host, reached[name]) for name, host in facts.items()}


def _named(name: str, host: HostFacts, wanted: str) -> ClusterAddress:
    for interface in host.interfaces:
        if interface.name == wanted:
            return _place(interface, "the cluster file says so")
    names = ", ".join(sorted({each.name for each in host.interfaces}))
    raise HostError(
        name,
        f"it has no interface {wanted} with an IPv4 address",
        fix=f"network.interface: one of {names}, or leave it out",
    )


def _alone(name: str, host: HostFacts, reached: Interface | None) -> ClusterAddress:
    if reached is not None:
        return _place(reached, "the client reaches it there")
    usable = [each for each in host.interfaces if not each.name.startswith(VIRTUAL)]
    if len(usable) == 1:
        return _place(usable[0], "its only interface that leads to other machines")
    if out := next((each for each in usable if each.name == host.default_interface), None):
        return _place(out, "its way out leads through it")
    if not usable:
        message = "it has no IPv4 address that other machines reach, and Ray needs one"
        fix = f"give it one on the network of the others: `ip addr` on {name} shows what it has"
        raise HostError(name, message, fix=fix)
    found = ", ".join(f"{each.name} {each.address}" for each in usable)
    raise HostError(
        name,
        f"which of its addresses do the other hosts reach? It has {found}",
        fix="name the interface in the cluster file: network: {interface: NAME}",
    )


def _owner(host: HostFacts) -> Interface | None:
    """Of the address at which the client reached it: Ray needs an IPv4 address, so for an IPv6 one
    the IPv4 address beside it."""
    usable = [each for each in host.interfaces if not each.name.startswith(VIRTUAL)]
    beside = (each for each in usable if each.name == host.ssh_interface)
    return next((each for each in usable if each.address == host.ssh_address), next(beside, None))


def _shared_networks(facts: Mapping[str, HostFacts]) -> list[str]:
    networks = [
        {each.network for each in host.interfaces if not each.name.startswith(VIRTUAL)}
        for host in facts.values()
    ]
    return sorted(set.intersection(*networks))


def _in_network(host: HostFacts, network: str) -> Interface:
    return next(each for each in host.interfaces if each.network == network)


def _place(interface: Interface, reason: str) -> ClusterAddress:
    note = next((word for start, word in NOTES.items() if interface.name.startswith(start)), "")
    return ClusterAddress(interface.address, interface.name, reason, note)
