"""Find out what runs on each host of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from launcher.config.loaded_cluster import LoadedCluster
from launcher.config.subcluster import subclusters
from launcher.errors import HostError
from launcher.raycluster.control import active_runs, host_state
from launcher.raycluster.drain import list_drained
from launcher.ssh.parallel import close_all, in_parallel, try_connect_all
from launcher.ssh.protocol import Connection


@dataclass(frozen=True)
class NodeStatus:
    """What runs on one node. Written as it is by `launch cluster status --json`."""

    node: str
    status: str
    """up, starting, restarting, down, orphaned or unreachable."""
    address: str | None = None
    starts: int | None = None
    """How often Ray was started since the supervisor was."""
    boot_hook: str | None = None
    """What starts Ray when the host boots."""
    runs: tuple[str, ...] = ()
    """Active runs, on the head only."""
    drained: bool = False


def cluster_status(loaded: LoadedCluster) -> tuple[list[NodeStatus], list[HostError]]:
    """Ask every host. Return a status for each node, and why some could not be asked."""
    nodes = tuple(loaded.cluster.nodes)
    connections, errors = try_connect_all(loaded, nodes)
    try:
        statuses: dict[str, NodeStatus] = {}
        drained: set[str] = set()
        for subcluster in subclusters(loaded):
            names = [node.name for node in subcluster.cluster.nodes]
            reached = {name: connections[name] for name in names if name in connections}
            head = subcluster.cluster.head_node.name
            if head in reached:
                drained |= list_drained(reached[head], subcluster.cluster.name)
            found, lost = _subcluster_status(subcluster, reached)
            for status in found:  # a host that is down in one subcluster may be up in another
                if status.node not in statuses or status.status != "down":
                    statuses[status.node] = status
            hosts = {error.host for error in errors}
            errors += [error for error in lost if error.host not in hosts]
    finally:
        close_all(connections)
    return [
        replace(
            statuses.get(node.name) or NodeStatus(node.name, "unreachable"),
            drained=node.name in drained,
        )
        for node in nodes
    ], errors


def _subcluster_status(
    subcluster: LoadedCluster, connections: Mapping[str, Connection]
) -> tuple[list[NodeStatus], list[HostError]]:
    """Return the status of the hosts that answer, and why the others do not."""
    name, head = subcluster.cluster.name, subcluster.cluster.head_node.name
    states, lost = in_parallel(connections, lambda connection: host_state(connection, name))
    running = active_runs({head: connections[head]}, name) if head in states else []
    if subcluster.subcluster is not None:  # the statuses are those of the whole file
        running = [f"{name}/{run}" for run in running]
    statuses = [
        NodeStatus(
            node=node,
            status=state.status,
            address=connections[node].address,
            starts=state.starts,
            boot_hook=state.boot_hook,
            runs=tuple(running) if node == head else (),
        )
        for node, state in states.items()
    ]
    return statuses, lost
