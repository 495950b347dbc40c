"""The run that measures machines: what it trains, and its removal."""

from __future__ import annotations

import math
import time

from launcher.config.cluster import LOCAL
from launcher.config.cluster_hosts import find_hosts
from launcher.config.recipe import LoadedRecipe, Recipe, load_recipe
from launcher.errors import InputError, RunBusy
from launcher.hosts.local_gpus import find_local_gpus
from launcher.operations.open_cluster import OpenCluster
from launcher.operations.run_location import RunLocation, resolve_run_location
from launcher.remote.cluster_runs import RemoteRun
from launcher.remote.remove import RemoteRemoval

STEPS = 8
GPU_TOKENS = 32_768  # of a step: with fewer a GPU waits for its host
MAX_ROWS = 256  # of a step, so that the host with the smallest share has one
DEFAULTS = Recipe.model_fields
END_SECONDS = 20.0  # of a driver that has written its summary


def measuring_recipe(name: str, cluster: str, pool: str | None) -> tuple[LoadedRecipe, RunLocation]:
    """Return a recipe's steps with at least a row for every rank, and little else, and where they
    are made.

    Raises InputError if the smallest share of the cluster would need too many rows.
    """
    recipe = load_recipe(name).recipe
    rows = recipe.rows_per_step
    on_gpus = cluster == LOCAL and bool(find_local_gpus().gpus)
    hosts = find_hosts(cluster, pool)
    if hosts is not None:
        nodes = hosts.nodes
        on_gpus = nodes[0].accelerator != "cpu"
        weights = [node.share / (node.gpus or 1) for node in nodes]
        needed_rows = math.ceil(sum(node.share for node in nodes) / min(weights))
        if needed_rows > max(rows, MAX_ROWS):
            raise InputError(
                f"the smallest share of {cluster} is a row of {needed_rows:,}: "
                f"`launch measure` makes steps of {MAX_ROWS} at most",
                fix="a larger `share` in the cluster file, or none: measuring finds them",
            )
        rows = max(rows, needed_rows)
    if on_gpus:
        rows = max(rows, GPU_TOKENS // recipe.sequence_length)
    settings = {
        "tokens_per_step": rows * recipe.sequence_length,
        "warmup_steps": STEPS,
        "evaluation.every_steps": STEPS,  # before the first and after the last
        "evaluation.tokens": recipe.sequence_length,
        "checkpoint.every_steps": "null",
        "checkpoint.every_minutes": "null",
        "elastic": "false",
        "workers": 1,
        # Plans of all recipes are corrected by the probe, which keeps none of these.
        "micro_batch": "null",
        "dtype": "auto",
        "window_pattern": DEFAULTS["window_pattern"].default,
        "vocab_size": DEFAULTS["vocab_size"].default,
    }
    overrides = [("--set", f"{key}={value}") for key, value in settings.items()]
    loaded = load_recipe(name, [*overrides, ("--steps", str(STEPS))])
    return loaded, resolve_run_location(loaded, hosts)


def remove_measuring_run(cluster: OpenCluster, run: RemoteRun) -> None:
    """Remove a run that has ended from all hosts. Raises RunBusy if its driver does not end."""
    head = {cluster.spec.head.name: cluster.runs.head}  # it may have been lost on the way
    connections = {**cluster.connections, **head}
    deadline = time.monotonic() + END_SECONDS
    while True:
        try:
            RemoteRemoval.find(connections, cluster.spec.cluster, run.name).remove()
            return
        except RunBusy:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
