"""launch cluster drain: a node that is to be switched off leaves the runs first."""

from __future__ import annotations

from typing import Any

import click

from launcher.cli.attach import print_end
from launcher.cli.options import json_option
from launcher.cli.render.run_end import ended_message
from launcher.cli.render.run_progress import RunProgress
from launcher.cli.render.table import print_json
from launcher.cli.stop import save_and_stop
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import require_node
from launcher.errors import InputError
from launcher.raycluster.drain import drain
from launcher.remote.cluster_runs import ClusterRuns, RemoteRun
from launcher.remote.open_runs import open_cluster_runs
from launcher.runs.events import ResizeEvent
from launcher.runs.follow import Follower
from launcher.runs.run import run_address
from launcher.runs.state import RunState, last_members, last_saved_step, status_of


@click.command()
@click.argument("cluster")
@click.argument("node")
@json_option
def command(cluster: str, node: str, as_json: bool) -> None:
    """Have a node train no more, so that it can be switched off.

    A run saves first: an elastic one goes on without the node, any other is stopped. New runs leave
    the node out. `launch cluster up` takes it back.
    """
    loaded = load_cluster(cluster)
    require_node(loaded, node)
    name = loaded.cluster.name
    if node == loaded.cluster.head_node.name:
        raise InputError(
            f"{node} is the head of {name}: it keeps the runs and their text, and leads them",
            fix=f"stop what runs there (launch cluster down {loaded.cli_name}), and go on after "
            "its boot; or make another node its head in the cluster file: head: NAME",
        )
    with open_cluster_runs(loaded) as runs:
        active = [run for run in _active_runs(runs) if node in _members(run)]
        followers = {run.name: Follower(run, from_now=True) for run in active}
        drain(runs.head, name, node)
        results = [_drain_run(run, followers[run.name], node) for run in active]
        if as_json:
            print_json({"cluster": name, "node": node, "runs": results})
        else:
            click.echo(f"{node} is drained: launch cluster up {loaded.cli_name}   takes it back")
        for run, result in zip(active, results, strict=True):
            if result["status"] in ("failed", "interrupted"):
                print_end(run, as_json=as_json)  # raises


def _active_runs(runs: ClusterRuns) -> list[RemoteRun]:
    active = [RemoteRun(runs, name) for name in runs.running()]
    for run in active:
        run.update()
    return active


def _members(run: RemoteRun) -> tuple[str, ...]:
    """Nodes that it trains on, or will when its turn comes."""
    return last_members(run.folder, (node.name for node in run.folder.spec().nodes))


def _drain_run(run: RemoteRun, follower: Follower, node: str) -> dict[str, Any]:
    """Return when the run is off the node. `step`: the one that it continues from."""
    if not run.folder.spec().recipe.elastic:
        save_and_stop(run)
        return _report_ended(run, node)
    if status_of(run.folder, alive=True) == "running" and not _follow_until_left(
        run, follower, node
    ):
        return _report_ended(run, node)
    state = RunState.of(run.folder, alive=True)
    click.echo(
        f"run '{run_address(run)}' goes on without {node}, from step {state.step:,}", err=True
    )
    return {"run": run.name, "status": state.status, "step": state.step}


def _report_ended(run: RemoteRun, node: str) -> dict[str, Any]:
    """Report a run that this command has stopped, or that has ended by itself. `print_end` gives
    the reason of a failure."""
    status, step = status_of(run.folder, alive=False), last_saved_step(run.folder)
    click.echo(ended_message(run_address(run), status, step, node), err=True)
    return {"run": run.name, "status": status, "step": step}


def _follow_until_left(run: RemoteRun, follower: Follower, node: str) -> bool:
    """Return when the run has left the node. False if it has ended before."""
    state = RunState.of(run.folder, alive=True)
    with RunProgress(state.steps, step=state.step) as progress:
        for update in follower.until_end():
            progress.show(update)
            if any(isinstance(e, ResizeEvent) and node not in e.nodes for e in update.events):
                return True
    return False
