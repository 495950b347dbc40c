"""All findings about the hosts of a cluster, from their facts to what was tried between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from launcher.hosts.cluster_addresses import ClusterAddress
from launcher.hosts.facts import HostFacts
from launcher.hosts.gpu_preflight import Accelerator, judge_gpus
from launcher.hosts.link_speed import PairSpeed, measure_links
from launcher.hosts.network_preflight import (
    judge_addresses,
    judge_pairs,
    judge_unmeasured,
    working_pairs,
)
from launcher.hosts.port_probe import try_pairs
from launcher.hosts.preflight import Finding, judge_host
from launcher.ssh.protocol import Connection


@dataclass(frozen=True)
class HostRequirements:
    """What the cluster file and its Ray want of one host."""

    ray_ports: tuple[int, ...]
    """Ports that Ray listens on there."""
    reachable_ports: tuple[int, ...]
    """Ports that other hosts connect to."""
    is_up: bool
    """Whether our own cluster is up and holds these ports."""
    accelerator: Accelerator = "cpu"
    gpus: int | None = None
    """GPUs of its `accelerator`; None: all there are."""


def check_hosts(
    connections: Mapping[str, Connection],
    facts: Mapping[str, HostFacts],
    addresses: Mapping[str, ClusterAddress],
    requirements: Mapping[str, HostRequirements],
    *,
    measure_speeds: bool = False,
) -> list[Finding]:
    """By host, in the order of `facts`. One that cannot be asked any more is a finding too.

    `measure_speeds`: measure the links too, which keeps them busy for 0.5 s a pair.
    """
    findings: list[Finding] = []
    for name, host in facts.items():
        wanted = requirements[name]
        address = addresses.get(name)
        findings += judge_host(name, host, address, wanted.ray_ports, is_up=wanted.is_up)
        findings += judge_gpus(name, host, wanted.accelerator, wanted.gpus, is_up=wanted.is_up)
    shared = list(judge_addresses(addresses))
    findings += shared
    if len(addresses) > 1 and not shared:
        # What our own cluster listens on, Ray answers; what it does not, nothing has to.
        free_ports = {
            name: () if wanted.is_up else _free(facts[name], wanted.reachable_ports)
            for name in addresses
            for wanted in [requirements[name]]
        }
        ip_addresses = {name: address.address for name, address in addresses.items()}
        several = {name: connections[name] for name in addresses}
        known = {name: facts[name] for name in addresses}
        results = try_pairs(several, known, ip_addresses, free_ports)
        measured: Sequence[PairSpeed] = ()
        if measure_speeds:
            measured = measure_links(several, known, ip_addresses, working_pairs(results))
        findings += judge_pairs(results, addresses, measured)
        if measure_speeds:
            findings += judge_unmeasured(results, measured)
    order = list(facts)
    return sorted(findings, key=lambda finding: order.index(finding.host))


def _free(host: HostFacts, ports: tuple[int, ...]) -> tuple[int, ...]:
    """Those that nothing holds: a taken one is a finding already."""
    return tuple(port for port in ports if port not in host.listening_ports)
