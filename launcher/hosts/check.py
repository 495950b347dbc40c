"""All findings about the hosts of a cluster, from what they said to what was tried between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from launcher.hosts.facts import HostFacts
from launcher.hosts.gpu_preflight import Accelerator, judge_gpus
from launcher.hosts.links import measure_links
from launcher.hosts.network import ClusterAddress
from launcher.hosts.pair_preflight import (
    judge_addresses,
    judge_pairs,
    judge_unmeasured,
    unbroken_pairs,
)
from launcher.hosts.pairs import try_pairs
from launcher.hosts.preflight import Finding, judge_host
from launcher.ssh.protocol import Connection


@dataclass(frozen=True)
class HostRequirements:
    """Ports of one host: `taken` by Ray there, `reached` by others. `ours`: our cluster is up and
    holds them. `gpus`: how many of its `accelerator`; None: all there are."""

    taken: tuple[int, ...]
    reached: tuple[int, ...]
    ours: bool
    accelerator: Accelerator = "cpu"
    gpus: int | None = None


def check_hosts(
    connections: Mapping[str, Connection],
    facts: Mapping[str, HostFacts],
    places: Mapping[str, ClusterAddress],
    needs: Mapping[str, HostRequirements],
    *,
    speeds: bool = False,
) -> list[Finding]:
    """By host, in the order of `facts`. One that cannot be asked any more is a finding too.

    `speeds`: measure the links too, which keeps them busy for 0.5 s a pair.
    """
    findings = [
        finding
        for name, host in facts.items()
        for finding in (
            *judge_host(name, host, places.get(name), needs[name].taken, ours=needs[name].ours),
            *judge_gpus(
                name, host, needs[name].accelerator, needs[name].gpus, ours=needs[name].ours
            ),
        )
    ]
    shared = list(judge_addresses(places))
    findings += shared
    if len(places) > 1 and not shared:
        # What our own cluster listens on, Ray answers; what it does not, nothing has to.
        reached = {
            name: () if needs[name].ours else _free(facts[name], needs[name].reached)
            for name in places
        }
        addresses = {name: place.address for name, place in places.items()}
        several = {name: connections[name] for name in places}
        known = {name: facts[name] for name in places}
        results = try_pairs(several, known, addresses, reached)
        measured = (
            measure_links(several, known, addresses, unbroken_pairs(results)) if speeds else ()
        )
        findings += judge_pairs(results, places, measured)
        if speeds:
            findings += judge_unmeasured(results, measured)
    order = list(facts)
    return sorted(findings, key=lambda finding: order.index(finding.host))


def _free(host: HostFacts, ports: tuple[int, ...]) -> tuple[int, ...]:
    """Those that nothing holds: a taken one is a finding already."""
    return tuple(port for port in ports if port not in host.listening_ports)
