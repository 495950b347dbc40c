"""What the hosts of a cluster are found to be like, before anything is planned."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from launcher.config.cluster import Cluster
from launcher.config.loaded_cluster import LoadedCluster
from launcher.config.subcluster import conflicting_clusters
from launcher.errors import HostError, InputError
from launcher.hosts.check import HostRequirements, check_hosts
from launcher.hosts.facts import HostFacts, gather_facts
from launcher.hosts.network import ClusterAddress, choose_addresses
from launcher.hosts.pair_preflight import is_transient
from launcher.hosts.preflight import Finding
from launcher.raycluster.control import HostState, host_state, host_states, read_spec
from launcher.raycluster.ports import cluster_ports
from launcher.raycluster.spec import ClusterSpec
from launcher.ssh.parallel import in_parallel
from launcher.ssh.protocol import Connection

MORE_LOOKS = 2
PAUSE_SECONDS = (0.5, 1.5)  # of random length, so that two checks do not meet again


@dataclass(frozen=True)
class ClusterProbe:
    """`errors`: why hosts did not answer. `answering`: connections to those that did. `running`:
    what the head's Ray was started with; None where it is not up."""

    errors: Sequence[HostError]
    answering: Mapping[str, Connection]
    states: Mapping[str, HostState]
    facts: Mapping[str, HostFacts]
    places: Mapping[str, ClusterAddress]
    running: ClusterSpec | None
    findings: Sequence[Finding]


def probe_cluster(
    loaded: LoadedCluster, connections: Mapping[str, Connection], unreached: Sequence[HostError]
) -> ClusterProbe:
    """`unreached`: why there is no connection to other nodes. Whatever holds ports of the cluster
    for a moment only is no finding. Raises InputError where a host is in a rival's Ray."""
    found = _look(loaded, connections, unreached)
    for _ in range(MORE_LOOKS):
        if not any(map(is_transient, found.findings)):
            break
        time.sleep(random.uniform(*PAUSE_SECONDS))
        found = _look(loaded, connections, unreached)
    return found


def _look(
    loaded: LoadedCluster, connections: Mapping[str, Connection], unreached: Sequence[HostError]
) -> ClusterProbe:
    cluster = loaded.cluster
    # In this order: what ends meanwhile is ours to both, not a stranger's on our ports.
    states, lost = in_parallel(connections, lambda host: host_state(host, cluster.name))
    _refuse_rivals(loaded, {name: connections[name] for name in states})
    facts, silent = in_parallel({name: connections[name] for name in states}, gather_facts)
    states = {name: states[name] for name in facts}
    answering = {name: connections[name] for name in facts}
    errors = [*unreached, *lost, *silent]
    places: dict[str, ClusterAddress] = {}
    try:
        places = choose_addresses(cluster.network.interface, facts)
    except HostError as error:
        errors.append(error)
    running = _running_spec(cluster, answering, states)
    if running is not None and cluster.network.interface is None:
        places |= _kept_places(running, facts)
    findings: list[Finding] = []
    if not all(state.is_running for state in states.values()):
        findings = check_hosts(answering, facts, places, host_needs(cluster, states))
    return ClusterProbe(errors, answering, states, facts, places, running, findings)


def host_needs(cluster: Cluster, states: Mapping[str, HostState]) -> dict[str, HostRequirements]:
    """What the cluster's Ray wants of each host; `states`: of the hosts that were asked."""
    ports = cluster_ports(cluster.name)
    nodes = {node.name: node for node in cluster.nodes}
    return {
        name: HostRequirements(
            accelerator=nodes[name].accelerator,
            gpus=nodes[name].gpus,
            ray_ports=ports.taken(head=name == cluster.head_node.name),
            reachable_ports=ports.reached_from_others(head=name == cluster.head_node.name),
            is_up=state.status != "down",
        )
        for name, state in states.items()
    }


def _refuse_rivals(loaded: LoadedCluster, connections: Mapping[str, Connection]) -> None:
    """Raises InputError where a host is in the Ray of another part of the same file: neither would
    know that the other one trains there."""
    for rival, typed in conflicting_clusters(loaded).items():
        for node, state in host_states(connections, rival).items():
            if state.is_running:
                raise InputError(
                    f"{node} is up as a host of {rival}",
                    fix=f"launch cluster down {typed}   (then do this again)",
                )


def _running_spec(
    cluster: Cluster, connections: Mapping[str, Connection], states: Mapping[str, HostState]
) -> ClusterSpec | None:
    """What the head's Ray was started with; None where it is not up."""
    head = cluster.head_node.name
    if head not in states or not states[head].is_running:
        return None
    return read_spec(connections[head], cluster.name)


def _kept_places(before: ClusterSpec, facts: Mapping[str, HostFacts]) -> dict[str, ClusterAddress]:
    """Addresses that Ray uses and that hosts still have: they stay, whatever way a client comes."""
    return {
        node.name: ClusterAddress(node.address, node.interface, "Ray is up there")
        for node in before.nodes
        if node.name in facts
        and (node.address, node.interface)
        in {(each.address, each.name) for each in facts[node.name].interfaces}
    }
