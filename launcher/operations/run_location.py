"""Where a run is to train: this machine, or nodes of a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field

from launcher.config.cluster import LOCAL
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import LoadedCluster, require_trainable
from launcher.config.node import Node
from launcher.config.recipe import LoadedRecipe
from launcher.config.subcluster import select_pool
from launcher.errors import InputError
from launcher.planner.run_tuning import tune_cluster_run, tune_local_run
from launcher.runs.spec import Tuning
from launcher.runs.submit import require_cores, require_rows_for_all


@dataclass(frozen=True)
class RunLocation:
    """Where a run trains."""

    cluster: str
    workers: int
    """Ranks on this machine, or hosts of the cluster."""
    loaded: LoadedCluster | None
    """None: this machine."""
    pool: str | None = None
    """Of the cluster; None: all hosts."""
    tuning: Tuning = field(default_factory=Tuning)
    """What was measured there decides."""


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


def resolve_run_location(recipe: LoadedRecipe, hosts: ClusterHosts | None) -> RunLocation:
    """Raises ConfigError if the recipe does not fit the hosts, or this machine."""
    if hosts is None:
        require_cores(recipe)
        tuning = tune_local_run(recipe.recipe)
        return RunLocation(LOCAL, recipe.recipe.workers, None, tuning=tuning)
    name = hosts.loaded.cluster.name
    require_rows_for_all(recipe, name, {node.name: node.share for node in hosts.nodes})
    nodes = [(node, node.gpus or 1, node.cpus) for node in hosts.nodes]
    tuning = tune_cluster_run(recipe.recipe, hosts.loaded, nodes)
    return RunLocation(name, len(hosts.nodes), hosts.loaded, hosts.pool, tuning)
