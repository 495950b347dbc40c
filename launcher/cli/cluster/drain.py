"""launch cluster drain: a node that is to be switched off leaves the runs first."""

from __future__ import annotations

from typing import Any

import click

from launcher.cli.output import json_option, print_json
from launcher.cli.progress import RunProgress
from launcher.cli.stop import save_and_stop
from launcher.config.cluster import load_cluster, require_node
from launcher.errors import InputError
from launcher.raycluster.drained import drain
from launcher.runs.follow import Follower
from launcher.runs.heads import open_cluster_runs
from launcher.runs.records import read_records
from launcher.runs.remote import ClusterRuns, RemoteRun
from launcher.runs.run import shown_name
from launcher.runs.state import RunState, status_of


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
            fix=f"stop what runs there (launch cluster down {loaded.typed}), and go on after its "
            "boot; or write another head:",
        )
    with open_cluster_runs(cluster) as runs:
        at_work = [run for run in _at_work(runs) if node in _members(run)]
        followers = {run.name: Follower(run, from_now=True) for run in at_work}
        drain(runs.head, name, node)
        left = [_leave(run, followers[run.name], node) for run in at_work]
    if as_json:
        print_json({"cluster": name, "node": node, "runs": left})
    else:
        click.echo(f"{node} is drained: launch cluster up {loaded.typed}   takes it back")


def _at_work(runs: ClusterRuns) -> list[RemoteRun]:
    found = [RemoteRun(runs, name) for name in runs.running()]
    for run in found:
        run.update()
    return found


def _members(run: RemoteRun) -> list[str]:
    """Nodes that it trains on, or will when its turn comes."""
    changes = [e for e in read_records(run.folder.events) if e["kind"] == "resize"]
    every = [node["name"] for node in run.folder.spec()["nodes"]]
    return changes[-1]["nodes"] if changes else every


def _leave(run: RemoteRun, follower: Follower, node: str) -> dict[str, Any]:
    """Returns when the run is off the node."""
    name = shown_name(run)
    if not run.folder.spec()["settings"]["elastic"]:
        save_and_stop(run)
        step = RunState.of(run.folder, alive=False).step
        click.echo(
            f"run '{name}' was saved at step {step:,} and stopped\n"
            f"  launch resume {name}   goes on without {node}, with the same rows",
            err=True,
        )
        return {"run": run.name, "status": "stopped", "step": step}
    if status_of(run.folder, alive=True) == "running":
        _follow_until_left(run, follower, node)
    state = RunState.of(run.folder, alive=True)
    click.echo(f"run '{name}' goes on without {node}, from step {state.step:,}", err=True)
    return {"run": run.name, "status": state.status, "step": state.step}


def _follow_until_left(run: RemoteRun, follower: Follower, node: str) -> None:
    """Or until it ends."""
    state = RunState.of(run.folder, alive=True)
    with RunProgress(state.steps, step=state.step) as progress:
        for news in follower.until_end():
            progress.show(news)
            if any(e["kind"] == "resize" and node not in e["nodes"] for e in news.events):
                return
