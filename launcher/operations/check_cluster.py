"""Find out what would go wrong on the hosts of a cluster; nothing is changed there."""

from __future__ import annotations

from launcher.config.loaded_cluster import LoadedCluster, require_addresses, require_pool
from launcher.config.subcluster import select_pool
from launcher.errors import HostError
from launcher.hosts.check import check_hosts
from launcher.hosts.cluster_addresses import ClusterAddress, choose_addresses
from launcher.hosts.facts import gather_facts
from launcher.hosts.preflight import Finding
from launcher.raycluster.control import host_state
from launcher.raycluster.inventory import save_inventory
from launcher.raycluster.probe import cluster_requirements
from launcher.ssh.parallel import close_all, in_parallel, try_connect_all


def check_cluster(cluster: LoadedCluster, pool: str | None = None) -> list[Finding]:
    """Judge every host and every pair of hosts. Hosts that cannot be reached are findings too.

    What the hosts are is kept for `launch plan`. `pool`: its hosts only. Raises InputError if there
    is no such pool, or a host has no address.
    """
    loaded, pool = select_pool(cluster, pool)
    nodes = require_pool(loaded, pool)
    require_addresses(loaded, nodes)
    connections, errors = try_connect_all(loaded, nodes)
    try:
        name = loaded.cluster.name
        states, state_errors = in_parallel(connections, lambda host: host_state(host, name))
        answered = {name: connections[name] for name in states}
        facts, facts_errors = in_parallel(answered, gather_facts)
        states = {name: states[name] for name in facts}
        save_inventory(loaded, facts)
        connected = {name: connections[name] for name in facts}
        findings = [_host_finding(error) for error in [*errors, *state_errors, *facts_errors]]
        addresses: dict[str, ClusterAddress] = {}
        try:
            addresses = choose_addresses(loaded.cluster.network.interface, facts)
        except HostError as error:
            findings.append(_host_finding(error, "address"))
        findings += [
            Finding("ok", node, "ssh", f"{host.address} answers")
            for node, host in connected.items()
        ]
        required = cluster_requirements(loaded.cluster, states)
        findings += check_hosts(connected, facts, addresses, required, measure_speeds=True)
    finally:
        close_all(connections)
    order = [node.name for node in nodes]
    return sorted(findings, key=lambda finding: order.index(finding.host))


def _host_finding(error: HostError, code: str = "ssh") -> Finding:
    message = error.message.removeprefix(f"{error.host}: ")
    return Finding("error", error.host, code, message, error.fix)
