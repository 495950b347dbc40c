"""Where a run is to train: this machine, or nodes of a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field

from launcher.config.cluster import LOCAL
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import LoadedCluster, require_trainable
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


def resolve_run_location(recipe: LoadedRecipe, cluster: str, pool: str | None) -> RunLocation:
    """Raises NotFound or ConfigError for the cluster's file, ConfigError if the recipe does not fit
    its hosts."""
    if cluster == LOCAL:
        if pool is not None:
            raise InputError("--pool: local is one machine", fix="leave --pool out")
        require_cores(recipe)
        tuning = tune_local_run(recipe.recipe)
        return RunLocation(LOCAL, recipe.recipe.workers, None, tuning=tuning)
    loaded, pool = select_pool(load_cluster(cluster), pool)
    nodes = require_trainable(loaded, pool)
    require_rows_for_all(recipe, loaded.cluster.name, {node.name: node.share for node in nodes})
    tuning = tune_cluster_run(
        recipe.recipe, loaded, [(node, node.gpus or 1, node.cpus) for node in nodes]
    )
    return RunLocation(loaded.cluster.name, len(nodes), loaded, pool, tuning)
