"""Start a run: its spec, its text and its folder, then its driver."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from launcher.config.cluster import LOCAL
from launcher.config.cluster_hosts import find_hosts
from launcher.config.recipe import LoadedRecipe, load_recipe
from launcher.errors import HostsInUse
from launcher.operations.notify import LiveObserver
from launcher.operations.open_cluster import OpenCluster, open_cluster
from launcher.operations.run_location import resolve_run_location
from launcher.planner.tuning import apply_tuning
from launcher.remote.cluster_runs import RemoteRun
from launcher.runs.driver_process import DriverProcess
from launcher.runs.folder import create_run, require_run_name
from launcher.runs.run import run_address
from launcher.runs.spec import RunSpec, Tuning, new_run_spec
from launcher.runs.training_requirements import require_text, require_training_packages


def start_run(
    recipe: str,
    *,
    cluster: str = LOCAL,
    pool: str | None = None,
    data: str | None = None,
    steps: int | None = None,
    settings: Sequence[str] = (),
    name: str | None = None,
    waits: bool = True,
    observer: LiveObserver | None = None,
) -> str:
    """Start a run and leave it in the background. Return its address, RUN or CLUSTER/RUN.

    `recipe`, `cluster`: a name or a path; `settings`: KEY=VALUE; `waits`: it may queue while
    another run has its hosts. Raises LaunchError: InputError for what is asked for, HostError for
    hosts, RunFailed if the driver does not start.
    """
    options = [("--set", setting) for setting in settings]
    options += [] if data is None else [("--data", data)]
    options += [] if steps is None else [("--steps", str(steps))]
    loaded = load_recipe(recipe, options)
    if name is not None:
        require_run_name(name)
    hosts = find_hosts(cluster, pool)
    location = resolve_run_location(loaded, hosts)
    require_text(loaded, Path.cwd(), is_local=location.loaded is None)
    spec = new_run_spec(loaded, cluster=location.cluster, entered=time.time())
    spec = spec.with_changes(waits=waits)
    if location.loaded is None:
        require_training_packages("start_run")
        folder = create_run(name, loaded.name, apply_tuning(spec, location.tuning))
        DriverProcess(folder, detach=True)
        return folder.name
    elastic = loaded.recipe.elastic
    with open_cluster(location.loaded, location.pool, elastic=elastic, observer=observer) as opened:
        run = create_cluster_run(opened, loaded, location.pool, spec, name)
        run.submit()
        return run_address(run)


def create_cluster_run(
    cluster: OpenCluster, recipe: LoadedRecipe, pool: str | None, spec: RunSpec, name: str | None
) -> RemoteRun:
    """Create a run on the head, tuned by what was measured. Its driver is not started yet.

    Raises HostsInUse if the run may not wait and another run has one of its hosts.
    """
    if not spec.waits:
        require_free_hosts(cluster)
    tuning = cluster.tuning(recipe.recipe)
    return create_remote_run(cluster, recipe.name, pool, apply_tuning(spec, tuning), name, tuning)


def create_remote_run(
    cluster: OpenCluster,
    stem: str,
    pool: str | None,
    spec: RunSpec,
    name: str | None,
    tuning: Tuning,
) -> RemoteRun:
    """Upload a run's text and create its folder on the head. Without a name: STEM-1, STEM-2, ..."""
    with cluster.stages.measure("text"):
        text = cluster.send_text(spec.recipe.data, Path.cwd())
    with cluster.stages.measure("create"):
        spec = cluster.assign_nodes(spec, tuning).with_changes(
            entered=spec.entered + cluster.head_clock_offset_seconds,
            cluster=cluster.spec.cluster,
            pool=pool,
            text=text,
        )
        return cluster.runs.create(name, stem, spec, reserved=cluster.runs_missing_on_head())


def require_free_hosts(cluster: OpenCluster) -> None:
    """Raise HostsInUse if another run has one of the cluster's hosts."""
    our_nodes = {node.name for node in cluster.spec.nodes}
    for name in cluster.runs.running():
        run = RemoteRun(cluster.runs, name)
        run.update()
        if our_nodes & {node.name for node in run.folder.spec().nodes}:
            raise HostsInUse(
                name,
                fix=f"leave --no-wait out: it waits; or: launch stop {cluster.spec.cluster}/{name}",
            )
