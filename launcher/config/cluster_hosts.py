"""The hosts that a command names with --cluster and --pool."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.config.cluster import LOCAL
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import LoadedCluster, require_trainable
from launcher.config.node import Node
from launcher.config.subcluster import select_pool
from launcher.errors import InputError


@dataclass(frozen=True)
class ClusterHosts:
    """Nodes of a cluster that can train together, of a file that is read once per command."""

    file: LoadedCluster
    """The whole file, or CLUSTER.POOL as it was named."""
    loaded: LoadedCluster
    """The cluster that the nodes are joined to: the file's own, or that of a pool."""
    pool: str | None
    nodes: tuple[Node, ...]


def find_hosts(cluster: str, pool: str | None) -> ClusterHosts | None:
    """Return the hosts that a command names; None is this machine.

    Raises NotFound or ConfigError for the cluster's file, InputError if its hosts cannot train
    together.
    """
    if cluster == LOCAL:
        if pool is not None:
            raise InputError("--pool: local is one machine", fix="leave --pool out")
        return None
    file = load_cluster(cluster)
    loaded, inner_pool = select_pool(file, pool)
    return ClusterHosts(file, loaded, inner_pool, require_trainable(loaded, inner_pool))
