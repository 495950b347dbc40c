"""launch cluster down: Ray stopped; with --purge the hosts are left as they were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from launcher.cli.bring_up_view import BringUpView
from launcher.cli.output import json_option, print_json, size
from launcher.config.cluster import load_cluster, require_addresses
from launcher.errors import HostError, HostsFailed, InputError, RunBusy
from launcher.provision.purge import Removed, purge
from launcher.raycluster.control import host_states, read_spec, runs_at_work, stop
from launcher.runs.homecoming import bring_home
from launcher.runs.remote import ClusterRuns, run_names
from launcher.transport.connection import Connection
from launcher.transport.together import all_of, close_all, connect_each, on_all


@click.command()
@click.argument("cluster")
@click.option("--purge", "purges", is_flag=True, help="Also remove all that was put there.")
@click.option("--discard-runs", is_flag=True, help="With --purge: bring no checkpoints home.")
@click.option("--force", is_flag=True, help="Even while a run is at work: it is not saved first.")
@json_option
def command(cluster: str, purges: bool, discard_runs: bool, force: bool, as_json: bool) -> None:
    """Stop what was started on the hosts, and nothing else; those that do not answer are named.

    --purge brings the newest verified checkpoint of every run home first (where it cannot,
    nothing is removed), then removes what was put there and lists it.
    """
    if discard_runs and not purges:
        raise InputError("--discard-runs goes with --purge", fix="add --purge, or leave it out")
    loaded = load_cluster(cluster)
    nodes = tuple(loaded.cluster.nodes)
    require_addresses(loaded, nodes)
    name, head = loaded.cluster.name, loaded.cluster.head_node.name
    connections, unreached = connect_each(loaded, nodes)
    try:
        if purges and unreached:
            raise all_of(unreached)
        if head not in connections and not force:
            raise HostError(
                head,
                "the head does not answer: whether a run is at work is not known",
                fix=f"launch cluster down {name} --force   stops Ray on the other hosts",
            )
        running = _running(connections, name, force=force)
        if running and not force:
            raise RunBusy(
                f"run '{running[0]}' is at work on {name}",
                fix=f"save and stop it first: launch stop {name}/{running[0]}   (or add --force)",
            )
        for run in running:
            click.echo(f"run '{run}' is ended: what it has not saved is lost", err=True)
        before = host_states(connections, name)
        stop(connections, name)
        stopped = [node for node, state in before.items() if state.is_running]
        home: dict[str, str] = {}
        if purges and not discard_runs and (runs := _runs(connections, name)):
            with BringUpView() as view:
                home = bring_home(runs, connections, view.sent)
        if purges:
            click.echo("removing what was put on the hosts", err=True)
        removed = on_all(connections, lambda each: purge(each, name)) if purges else {}
    finally:
        close_all(connections)
    if as_json:
        lists = {
            node: [{"path": f"~/.launch/{item.path}", "bytes": item.bytes} for item in items]
            for node, items in removed.items()
        }
        purged = {"brought_home": home, "removed": lists} if purges else {}
        print_json({"cluster": name, "stopped": stopped, **purged})
    else:
        _print(home, stopped, removed)
    if unreached:
        raise all_of(unreached)


def _running(connections: Mapping[str, Connection], cluster: str, *, force: bool) -> list[str]:
    """Raises HostError where it cannot be known, unless that does not matter."""
    try:
        return runs_at_work(connections, cluster)
    except (HostError, HostsFailed):
        if not force:
            raise
        return []


def _print(
    home: Mapping[str, str], stopped: Sequence[str], removed: Mapping[str, Sequence[Removed]]
) -> None:
    for run, path in home.items():
        click.echo(f"run '{run}': its newest checkpoint is at {path}")
    click.echo(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")
    for node, items in removed.items():
        click.secho(node, bold=True)
        for item in items:
            click.echo(f"  removed ~/.launch/{item.path}  {size(item.bytes)}")
        if not items:
            click.echo("  there was nothing to remove")


def _runs(connections: Mapping[str, Connection], cluster: str) -> ClusterRuns | None:
    """None where there are none. Raises HostError where there are some that cannot be brought
    home."""
    for host in connections.values():
        if (spec := read_spec(host, cluster)) is not None:
            return ClusterRuns(spec, host)
    for host in connections.values():
        if names := run_names(host, cluster):
            raise HostError(
                host.name,
                f"it has run '{names[0]}', of which no host has a record",
                fix="look at ~/.launch/clusters there, or give it up: add --discard-runs",
            )
    return None
