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
    typed = f"{loaded.typed}.{pool}"
    return replace(loaded, name=cluster.name, cluster=cluster, typed=typed, part=pool), None


def subclusters(loaded: LoadedCluster) -> tuple[LoadedCluster, ...]:
    """All clusters that a file's hosts can be joined to: its own, then those of its pools."""
    if loaded.part is not None:
        return (loaded,)
    pools = (select_pool(loaded, pool)[0] for pool in loaded.cluster.pools)
    return (loaded, *(part for part in pools if part.part is not None))


def require_subcluster(loaded: LoadedCluster, pool: str) -> LoadedCluster:
    """What CLUSTER.POOL means. Raises NotFound, or InputError for a pool of the head."""
    part, _ = select_pool(loaded, pool)
    if part.part is None:
        raise InputError(
            f"pool {pool} holds the head of {loaded.name}: it is no cluster of its own",
            fix=f"write {loaded.typed}, with --pool {pool} where only its hosts are meant",
        )
    return part


def conflicting_clusters(loaded: LoadedCluster) -> dict[str, str]:
    """The other clusters that its hosts can be joined to by the same file: name -> what names it on
    a command line."""
    if loaded.part is not None:
        end = f".{loaded.part}"
        return {loaded.cluster.name.removesuffix(end): loaded.typed.removesuffix(end)}
    return {part.cluster.name: part.typed for part in subclusters(loaded)[1:]}
