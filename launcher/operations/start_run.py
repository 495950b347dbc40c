"""Start a run on a cluster: its text and its folder on the head, then its driver."""

from __future__ import annotations

from pathlib import Path

from launcher.config.recipe import LoadedRecipe
from launcher.errors import RunBusy
from launcher.operations.open_cluster import OpenCluster
from launcher.planner.run_tuning import apply_tuning
from launcher.remote.cluster_runs import RemoteRun
from launcher.runs.spec import RunSpec, Tuning


def create_cluster_run(
    cluster: OpenCluster, recipe: LoadedRecipe, pool: str | None, spec: RunSpec, name: str | None
) -> RemoteRun:
    """Create a run on the head, tuned by what was measured. Its driver is not started yet.

    Raises RunBusy if the run may not wait and another run has one of its hosts.
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
    with cluster.stages.stage("text"):
        text = cluster.send_text(spec.recipe.data, Path.cwd())
    with cluster.stages.stage("create"):
        spec = cluster.on_these_nodes(spec, tuning).with_changes(
            entered=spec.entered + cluster.head_clock_offset_seconds,
            cluster=cluster.spec.cluster,
            pool=pool,
            text=text,
        )
        return cluster.runs.create(name, stem, spec, elsewhere=cluster.forgotten_runs())


def require_free_hosts(cluster: OpenCluster) -> None:
    """Raise RunBusy if another run has one of the cluster's hosts."""
    ours = {node.name for node in cluster.spec.nodes}
    for name in cluster.runs.running():
        run = RemoteRun(cluster.runs, name)
        run.update()
        if ours & {node.name for node in run.folder.spec().nodes}:
            raise RunBusy(
                f"run '{name}' has these hosts",
                fix=f"leave --no-wait out: it waits; or: launch stop {cluster.spec.cluster}/{name}",
            )
