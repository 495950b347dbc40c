"""From a name on a command line to the machines of a plan."""

from __future__ import annotations

import contextlib
from typing import Any

from launcher.config.cluster import LOCAL
from launcher.config.recipe import LoadedRecipe
from launcher.errors import InputError
from launcher.planner.calibration import Calibration
from launcher.planner.hardware import Hardware, cluster_hardware, local_hardware
from launcher.planner.measurement import load_measurement
from launcher.planner.run_plan import RunPlan, make_plan
from launcher.runs.folder import all_mirrors, all_runs

PREDICTED = "predicted"  # the key of run.json


def find_hardware(
    cluster: str, pool: str | None, workers: int
) -> tuple[Hardware, dict[str, Hardware]]:
    """The machines that are meant, and the file's other pools by the option that names them.

    Raises NotFound or ConfigError for the file, InputError where its hosts cannot train together.
    """
    if cluster == LOCAL:
        if pool is not None:
            raise InputError("--pool: local is one machine", fix="leave --pool out")
        return local_hardware(load_measurement(LOCAL), workers), {}
    from launcher.config.cluster_file import load_cluster
    from launcher.config.loaded_cluster import require_trainable
    from launcher.config.subcluster import select_pool

    whole = load_cluster(cluster)

    def site(name: str | None) -> Hardware:
        loaded, inner = select_pool(whole, name)
        nodes = require_trainable(loaded, inner)
        return cluster_hardware(loaded, inner, nodes, load_measurement(loaded.cluster.name))

    meant = site(pool)
    others = {}
    if whole.subcluster is None:
        mine = {machine.name for machine in meant.machines}
        for name in whole.cluster.pools:
            if not mine & {node.name for node in whole.cluster.nodes_in_pool(name)}:
                with contextlib.suppress(InputError):  # hosts that cannot train together
                    others[f"--pool {name}"] = site(name)
    return meant, others


def load_calibration() -> Calibration:
    """Of all runs that this machine has seen."""
    return Calibration([*all_runs(), *all_mirrors()])


def prediction(plan: RunPlan) -> dict[str, Any]:
    """What run.json keeps of it, to be compared with what the run does."""
    prospect = plan.prospect
    keys = ("tokens_per_second", "step_seconds", "hours")
    figures = prospect.figures()
    return {**{key: figures[key] for key in keys}, "basis": prospect.basis}


def plan_run(loaded: LoadedRecipe, cluster: str, pool: str | None) -> RunPlan:
    """Raises what `find_hardware` does, and ConfigError where a host would get no row of a step."""
    site, others = find_hardware(cluster, pool, loaded.recipe.workers)
    plan = make_plan(loaded.name, loaded.recipe, site, others, load_calibration())
    if plan is None:
        rows = loaded.recipe.rows_per_step
        raise loaded.error(
            "tokens_per_step",
            f"{rows} rows per step leave none for a host of {site.name}",
            fix="more tokens per step, fewer hosts (--pool), or other shares in the cluster file",
        )
    return plan
