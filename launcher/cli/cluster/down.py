"""launch cluster down: Ray stopped; with --purge the hosts are left as they were found."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import click

from launcher.cli.options import json_option, notify
from launcher.cli.render.bring_up import BringUpView
from launcher.cli.render.table import print_json
from launcher.cli.stop import save_and_stop
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import require_addresses
from launcher.config.subcluster import subclusters
from launcher.errors import InputError, Interrupted, RunBusy
from launcher.formatting import format_bytes
from launcher.operations.shut_down import ClusterShutdown, describe_forgotten_subclusters
from launcher.provision.purge import RemovedPath
from launcher.ssh.parallel import call_on_all, close_all, combine_errors, try_connect_all


@click.command()
@click.argument("cluster")
@click.option("--purge", "purges", is_flag=True, help="Also remove all that was put there.")
@click.option("--discard-runs", is_flag=True, help="With --purge: bring no checkpoints home.")
@click.option("--force", is_flag=True, help="Even while a run is at work: it is not saved first.")
@json_option
def command(cluster: str, purges: bool, discard_runs: bool, force: bool, as_json: bool) -> None:
    """Stop what was started on the hosts, and nothing else; those that do not answer are named.

    While a run is at work it asks, and saves it first.
    --purge brings the newest verified checkpoint of every run home first (where it cannot,
    nothing is removed), then removes what was put there and lists it.
    """
    if discard_runs and not purges:
        raise InputError("--discard-runs goes with --purge", fix="add --purge, or leave it out")
    loaded = load_cluster(cluster)
    nodes = tuple(loaded.cluster.nodes)
    require_addresses(loaded, nodes)
    connections, unreached = try_connect_all(loaded, nodes)
    home: dict[str, str] = {}
    stopped: list[str] = []
    removed: dict[str, list[RemovedPath]] = {name: [] for name in connections if purges}
    try:
        if purges and unreached:
            raise combine_errors(unreached)
        ends = [ClusterShutdown(part, connections) for part in subclusters(loaded)]
        for words in describe_forgotten_subclusters(loaded, connections):
            notify(words)
        for part in [part for part in ends if _confirm_runs(part, force=force)]:
            for run in part.active_runs():
                save_and_stop(run)
        for part in ends:
            stopped += part.stop()
        if purges and not discard_runs:
            with BringUpView() as view:
                for part in ends:
                    home |= part.fetch_checkpoints(view.sent)
        if purges:
            notify("removing what was put on the hosts")
            for part in ends:
                for node, items in call_on_all(part.connections, part.purge).items():
                    removed[node] += items
    finally:
        close_all(connections)
    if as_json:
        lists = {
            node: [{"path": f"~/.launch/{item.path}", "bytes": item.bytes} for item in items]
            for node, items in removed.items()
        }
        hooks = {node: hook for part in ends for node, hook in part.boot_hooks.items() if hook}
        purged = {"brought_home": home, "removed": lists, "boot_hooks": hooks} if purges else {}
        print_json({"cluster": loaded.cluster.name, "stopped": stopped, **purged})
    else:
        _print(home, stopped, removed, ends)
    if unreached:
        raise combine_errors(unreached)


def _confirm_runs(part: ClusterShutdown, *, force: bool) -> bool:
    """Whether active runs are to be saved and stopped first, as the user says. Raises RunBusy or
    Interrupted if not, HostError if it cannot be known."""
    if force:
        for run in part.give_up_runs():
            notify(f"run '{run}' is ended: what it has not saved is lost")
        return False
    running = part.running()
    for name in running:
        if sys.stdin is None or not sys.stdin.isatty():
            fix = f"save and stop it first: launch stop {part.name}/{name}   (or add --force)"
            raise RunBusy(f"run '{name}' is at work on {part.name}", fix=fix)
        question = f"Run '{name}' is at work on {part.name}. Save and stop it?"
        if not click.confirm(question, err=True):
            raise Interrupted("nothing was stopped")
    return bool(running)


def _print(
    home: Mapping[str, str],
    stopped: Sequence[str],
    removed: Mapping[str, Sequence[RemovedPath]],
    parts: Sequence[ClusterShutdown],
) -> None:
    for run, path in home.items():
        click.echo(f"run '{run}': its newest checkpoint is at {path}")
    click.echo(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")
    for node, items in removed.items():
        click.secho(node, bold=True)
        for item in items:
            click.echo(f"  removed ~/.launch/{item.path}  {format_bytes(item.bytes)}")
        hooks = [hook for part in parts for hook in part.boot_hooks.get(node, ())]
        for hook in hooks:
            click.echo(f"  removed {hook}")
        if not items and not hooks:
            click.echo("  there was nothing to remove")
