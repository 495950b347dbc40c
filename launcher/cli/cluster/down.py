"""launch cluster down: Ray stopped; with --purge the hosts are left as they were found."""

from __future__ import annotations

import sys

import click

from launcher.cli.options import json_option, notify
from launcher.cli.render.bring_up import BringUpView
from launcher.cli.render.hosts import print_shutdown
from launcher.cli.render.table import print_json
from launcher.cli.stop import save_and_stop
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import require_addresses
from launcher.config.subcluster import subclusters
from launcher.errors import InputError, Interrupted, RunBusy
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
    fetched: dict[str, str] = {}
    stopped: list[str] = []
    removed: dict[str, list[RemovedPath]] = {name: [] for name in connections if purges}
    try:
        if purges and unreached:
            raise combine_errors(unreached)
        shutdowns = [ClusterShutdown(subcluster, connections) for subcluster in subclusters(loaded)]
        for message in describe_forgotten_subclusters(loaded, connections):
            notify(message)
        confirmed = [each for each in shutdowns if _confirm_stop(each, force=force)]
        for shutdown in confirmed:
            for run in shutdown.active_runs():
                save_and_stop(run)
        for shutdown in shutdowns:
            stopped += shutdown.stop()
        if purges and not discard_runs:
            with BringUpView() as view:
                for shutdown in shutdowns:
                    fetched |= shutdown.fetch_checkpoints(view.show_transfer)
        if purges:
            notify("removing what was put on the hosts")
            for shutdown in shutdowns:
                for node, items in call_on_all(shutdown.connections, shutdown.purge).items():
                    removed[node] += items
    finally:
        close_all(connections)
    boot_hooks = {
        node: [hook for shutdown in shutdowns for hook in shutdown.boot_hooks.get(node, ())]
        for node in removed
    }
    if as_json:
        lists = {
            node: [{"path": f"~/.launch/{item.path}", "bytes": item.bytes} for item in items]
            for node, items in removed.items()
        }
        hooks = {node: lines for node, lines in boot_hooks.items() if lines}
        purged = {"brought_home": fetched, "removed": lists, "boot_hooks": hooks} if purges else {}
        print_json({"cluster": loaded.cluster.name, "stopped": stopped, **purged})
    else:
        print_shutdown(fetched, stopped, removed, boot_hooks)
    if unreached:
        raise combine_errors(unreached)


def _confirm_stop(shutdown: ClusterShutdown, *, force: bool) -> bool:
    """Ask whether active runs are to be saved and stopped first.

    Raises RunBusy if nobody can be asked, Interrupted if the answer is no, HostError if it is not
    known whether runs are active.
    """
    if force:
        for run in shutdown.cancel_runs():
            notify(f"run '{run}' is ended: what it has not saved is lost")
        return False
    running = shutdown.running()
    for name in running:
        if sys.stdin is None or not sys.stdin.isatty():
            fix = f"save and stop it first: launch stop {shutdown.name}/{name}   (or add --force)"
            raise RunBusy(f"run '{name}' is at work on {shutdown.name}", fix=fix)
        question = f"Run '{name}' is at work on {shutdown.name}. Save and stop it?"
        if not click.confirm(question, err=True):
            raise Interrupted("nothing was stopped")
    return bool(running)
