"""Pools whose runs need a head of their own: each is a cluster by itself, named CLUSTER.POOL."""

from __future__ import annotations

from dataclasses import replace

from launcher.config.loaded_cluster import LoadedCluster, require_pool
from launcher.errors import InputError


def select_pool(loaded: LoadedCluster, pool: str | None) -> tuple[LoadedCluster, str | None]:
    """The cluster that a run of this pool is on, and its pool there.

    A pool that holds the head is of the cluster itself. Any other is a cluster with Ray, ports and
    runs of its own, whose head is its first node: runs are kept on a host that trains them. Raises
    NotFound, or InputError for a cluster without nodes.
    """
    nodes = require_pool(loaded, pool)
    if pool is None or loaded.cluster.head_node in nodes:
        return loaded, pool
    update = {"name": f"{loaded.cluster.name}.{pool}", "nodes": nodes, "head": None}
    cluster = loaded.cluster.model_copy(update=update)
    cli_name = f"{loaded.cli_name}.{pool}"
    subcluster = replace(
        loaded, name=cluster.name, cluster=cluster, cli_name=cli_name, subcluster=pool
    )
    return subcluster, None


def subclusters(loaded: LoadedCluster) -> tuple[LoadedCluster, ...]:
    """All clusters that a file's hosts can join: its own, then those of its pools."""
    if loaded.subcluster is not None:
        return (loaded,)
    selected = (select_pool(loaded, pool)[0] for pool in loaded.cluster.pools)
    return (loaded, *(cluster for cluster in selected if cluster.subcluster is not None))


def require_subcluster(loaded: LoadedCluster, pool: str) -> LoadedCluster:
    """What CLUSTER.POOL means. Raises NotFound, or InputError for a pool of the head."""
    selected, _ = select_pool(loaded, pool)
    if selected.subcluster is None:
        raise InputError(
            f"pool {pool} holds the head of {loaded.name}: it is no cluster of its own",
            fix=f"write {loaded.cli_name}, with --pool {pool} where only its hosts are meant",
        )
    return selected


def conflicting_clusters(loaded: LoadedCluster) -> dict[str, str]:
    """The other clusters of the same file that its hosts can join: name -> its name on a command
    line."""
    if loaded.subcluster is not None:
        suffix = f".{loaded.subcluster}"
        return {loaded.cluster.name.removesuffix(suffix): loaded.cli_name.removesuffix(suffix)}
    return {other.cluster.name: other.cli_name for other in subclusters(loaded)[1:]}
