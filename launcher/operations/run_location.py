"""Where a run is to train: this machine, or nodes of a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field

from launcher.config.cluster import LOCAL
from launcher.config.cluster_hosts import ClusterHosts
from launcher.config.loaded_cluster import LoadedCluster
from launcher.config.recipe import LoadedRecipe
from launcher.planner.tuning import tune_cluster_run, tune_local_run
from launcher.runs.node import RunNode
from launcher.runs.spec import Tuning
from launcher.runs.training_requirements import require_cores, require_rows_for_all


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


def resolve_run_location(recipe: LoadedRecipe, hosts: ClusterHosts | None) -> RunLocation:
    """Raises ConfigError if the recipe does not fit the hosts, or this machine."""
    if hosts is None:
        require_cores(recipe)
        tuning = tune_local_run(recipe.recipe)
        return RunLocation(LOCAL, recipe.recipe.workers, None, tuning=tuning)
    name = hosts.loaded.cluster.name
    require_rows_for_all(recipe, name, {node.name: node.share for node in hosts.nodes})
    nodes = [RunNode.as_written(node) for node in hosts.nodes]
    tuning = tune_cluster_run(recipe.recipe, hosts.loaded, nodes)
    return RunLocation(name, len(hosts.nodes), hosts.loaded, hosts.pool, tuning)
