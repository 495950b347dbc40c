"""launch cluster drain: a node that is to be switched off leaves the runs first."""

from __future__ import annotations

from typing import Any

import click

from launcher.cli.attach import print_end
from launcher.cli.options import json_option
from launcher.cli.render.run_progress import RunProgress
from launcher.cli.render.table import print_json
from launcher.cli.stop import save_and_stop
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import require_node
from launcher.errors import InputError
from launcher.raycluster.drain import drain
from launcher.remote.cluster_runs import ClusterRuns, RemoteRun
from launcher.remote.open import open_cluster_runs
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
    with open_cluster_runs(cluster) as runs:
        at_work = [run for run in _at_work(runs) if node in _members(run)]
        followers = {run.name: Follower(run, from_now=True) for run in at_work}
        drain(runs.head, name, node)
        left = [_leave(run, followers[run.name], node) for run in at_work]
        if as_json:
            print_json({"cluster": name, "node": node, "runs": left})
        else:
            click.echo(f"{node} is drained: launch cluster up {loaded.cli_name}   takes it back")
        for run, each in zip(at_work, left, strict=True):
            if each["status"] in ("failed", "interrupted"):
                print_end(run, as_json=as_json)  # raises


def _at_work(runs: ClusterRuns) -> list[RemoteRun]:
    found = [RemoteRun(runs, name) for name in runs.running()]
    for run in found:
        run.update()
    return found


def _members(run: RemoteRun) -> tuple[str, ...]:
    """Nodes that it trains on, or will when its turn comes."""
    return last_members(run.folder, (node.name for node in run.folder.spec().nodes))


def _leave(run: RemoteRun, follower: Follower, node: str) -> dict[str, Any]:
    """Returns when the run is off the node. `step`: that it goes on from."""
    if not run.folder.spec().recipe.elastic:
        save_and_stop(run)
        return _ended(run, node)
    if status_of(run.folder, alive=True) == "running" and not _follow_until_left(
        run, follower, node
    ):
        return _ended(run, node)
    state = RunState.of(run.folder, alive=True)
    click.echo(
        f"run '{run_address(run)}' goes on without {node}, from step {state.step:,}", err=True
    )
    return {"run": run.name, "status": state.status, "step": state.step}


def _ended(run: RemoteRun, node: str) -> dict[str, Any]:
    """How: by this command, or by itself meanwhile. Why it failed is for `print_end` to say."""
    status, step = status_of(run.folder, alive=False), last_saved_step(run.folder)
    click.echo(ended_message(run_address(run), status, step, node), err=True)
    return {"run": run.name, "status": status, "step": step}


def ended_message(name: str, status: str, step: int, node: str) -> str:
    """`step`: the last one saved, 0: none."""
    saved = f"last saved at step {step:,}" if step else "nothing saved yet"
    words = f"run '{name}' has ended ({status}), {saved}"
    if status == "stopped":
        words += f"\n  launch resume {name}   goes on without {node}, with the same rows"
    return words


def _follow_until_left(run: RemoteRun, follower: Follower, node: str) -> bool:
    """False: it has ended before."""
    state = RunState.of(run.folder, alive=True)
    with RunProgress(state.steps, step=state.step) as progress:
        for news in follower.until_end():
            progress.show(news)
            if any(isinstance(e, ResizeEvent) and node not in e.nodes for e in news.events):
                return True
    return False
