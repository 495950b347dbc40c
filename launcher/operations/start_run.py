"""Start a run: its spec, its text and its folder, then its driver."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from launcher.config.cluster import LOCAL
from launcher.errors import HostsInUse
from launcher.operations.new_run import NewRun, request_run
from launcher.operations.notify import LiveObserver
from launcher.operations.open_cluster import OpenCluster, open_cluster
from launcher.planner.tuning import apply_tuning
from launcher.remote.cluster_runs import RemoteRun
from launcher.runs.driver_process import DriverProcess
from launcher.runs.folder import RunFolder, create_run
from launcher.runs.run import run_address
from launcher.runs.spec import RunSpec, Tuning
from launcher.runs.training_requirements import require_training_packages


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
    entered = time.time()
    new = request_run(
        recipe, cluster=cluster, pool=pool, data=data, steps=steps, settings=settings, name=name
    )
    location = new.location
    if location.loaded is None:
        folder = create_local_run(new, entered=entered, command="start_run")
        DriverProcess(folder, detach=True)
        return folder.name
    elastic = new.recipe.recipe.elastic
    with open_cluster(location.loaded, location.pool, elastic=elastic, observer=observer) as opened:
        run = create_cluster_run(opened, new, entered=entered, waits=waits)
        run.submit()
        return run_address(run)


def create_local_run(new: NewRun, *, entered: float, command: str) -> RunFolder:
    """Create a run on this machine, tuned by what was measured. Its driver is not started yet.

    `command`: what needs the packages of training. Raises MissingExtra if they are not installed.
    """
    require_training_packages(command)
    spec = apply_tuning(new.spec(entered=entered), new.location.tuning)
    return create_run(new.name, new.recipe.name, spec)


def create_cluster_run(
    cluster: OpenCluster, new: NewRun, *, entered: float, waits: bool
) -> RemoteRun:
    """Create a run on the head, tuned by what was measured. Its driver is not started yet.

    Raises HostsInUse if the run may not wait and another run has one of its hosts.
    """
    if not waits:
        require_free_hosts(cluster)
    tuning = cluster.tuning(new.recipe.recipe)
    spec = apply_tuning(new.spec(entered=entered, waits=waits), tuning)
    return create_remote_run(cluster, new.recipe.name, new.location.pool, spec, new.name, tuning)


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
