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
from launcher.hosts.cluster_addresses import ClusterAddress, choose_addresses
from launcher.hosts.facts import HostFacts, gather_facts
from launcher.hosts.network_preflight import is_transient
from launcher.hosts.preflight import Finding
from launcher.raycluster.control import HostState, host_state, host_states, read_spec
from launcher.raycluster.ports import cluster_ports
from launcher.raycluster.spec import ClusterSpec
from launcher.ssh.parallel import in_parallel
from launcher.ssh.protocol import Connection

RETRIES = 2
RETRY_SECONDS = (0.5, 1.5)  # of random length, so that two checks do not meet again


@dataclass(frozen=True)
class ClusterProbe:
    """What the hosts of a cluster answered, by node."""

    errors: Sequence[HostError]
    """Why hosts did not answer."""
    connections: Mapping[str, Connection]
    """To the hosts that answered."""
    states: Mapping[str, HostState]
    facts: Mapping[str, HostFacts]
    addresses: Mapping[str, ClusterAddress]
    running_spec: ClusterSpec | None
    """What the head's Ray was started with; None if it is not up."""
    findings: Sequence[Finding]


def probe_cluster(
    loaded: LoadedCluster, connections: Mapping[str, Connection], unreached: Sequence[HostError]
) -> ClusterProbe:
    """Ask all hosts. `unreached`: why there is no connection to other nodes.

    A process that holds a port of the cluster only for a moment is no finding. Raises InputError if
    a host is in the Ray of a conflicting cluster.
    """
    probe = _probe_once(loaded, connections, unreached)
    for _ in range(RETRIES):
        if not any(map(is_transient, probe.findings)):
            break
        time.sleep(random.uniform(*RETRY_SECONDS))
        probe = _probe_once(loaded, connections, unreached)
    return probe


def _probe_once(
    loaded: LoadedCluster, connections: Mapping[str, Connection], unreached: Sequence[HostError]
) -> ClusterProbe:
    cluster = loaded.cluster
    # In this order: what ends meanwhile is ours to both, not a stranger's on our ports.
    states, state_errors = in_parallel(connections, lambda host: host_state(host, cluster.name))
    _refuse_conflicting_clusters(loaded, {name: connections[name] for name in states})
    facts, facts_errors = in_parallel({name: connections[name] for name in states}, gather_facts)
    states = {name: states[name] for name in facts}
    answering = {name: connections[name] for name in facts}
    errors = [*unreached, *state_errors, *facts_errors]
    addresses: dict[str, ClusterAddress] = {}
    try:
        addresses = choose_addresses(cluster.network.interface, facts)
    except HostError as error:
        errors.append(error)
    running_spec = _running_spec(cluster, answering, states)
    if running_spec is not None and cluster.network.interface is None:
        addresses |= _addresses_in_use(running_spec, facts)
    findings: list[Finding] = []
    if not all(state.is_running for state in states.values()):
        findings = check_hosts(answering, facts, addresses, cluster_requirements(cluster, states))
    return ClusterProbe(errors, answering, states, facts, addresses, running_spec, findings)


def cluster_requirements(
    cluster: Cluster, states: Mapping[str, HostState]
) -> dict[str, HostRequirements]:
    """What the cluster's Ray wants of each host; `states`: of the hosts that were asked."""
    ports = cluster_ports(cluster.name)
    nodes = {node.name: node for node in cluster.nodes}
    return {
        name: HostRequirements(
            accelerator=nodes[name].accelerator,
            gpus=nodes[name].gpus,
            ray_ports=ports.listening_ports(head=name == cluster.head_node.name),
            reachable_ports=ports.reachable_ports(head=name == cluster.head_node.name),
            is_up=state.status != "down",
        )
        for name, state in states.items()
    }


def _refuse_conflicting_clusters(
    loaded: LoadedCluster, connections: Mapping[str, Connection]
) -> None:
    """Raises InputError where a host is in the Ray of another part of the same file: neither would
    know that the other one trains there."""
    for conflicting, cli_name in conflicting_clusters(loaded).items():
        for node, state in host_states(connections, conflicting).items():
            if state.is_running:
                raise InputError(
                    f"{node} is up as a host of {conflicting}",
                    fix=f"launch cluster down {cli_name}   (then do this again)",
                )


def _running_spec(
    cluster: Cluster, connections: Mapping[str, Connection], states: Mapping[str, HostState]
) -> ClusterSpec | None:
    """What the head's Ray was started with; None where it is not up."""
    head = cluster.head_node.name
    if head not in states or not states[head].is_running:
        return None
    return read_spec(connections[head], cluster.name)


def _addresses_in_use(
    running: ClusterSpec, facts: Mapping[str, HostFacts]
) -> dict[str, ClusterAddress]:
    """Addresses that Ray uses and that hosts still have: they stay, whatever way a client comes."""
    return {
        node.name: ClusterAddress(node.address, node.interface, "Ray is up there")
        for node in running.nodes
        if node.name in facts
        and (node.address, node.interface)
        in {(interface.address, interface.name) for interface in facts[node.name].interfaces}
    }
