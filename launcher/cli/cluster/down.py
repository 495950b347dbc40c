"""launch cluster down: Ray stopped; with --purge the hosts are left as they were found."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence

import click

from launcher.cli.options import json_option
from launcher.cli.render.bring_up import BringUpView
from launcher.cli.render.table import print_json
from launcher.cli.stop import save_and_stop
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import LoadedCluster, require_addresses
from launcher.config.subcluster import subclusters
from launcher.errors import HostError, HostsFailed, InputError, Interrupted, RunBusy
from launcher.formatting import format_bytes
from launcher.provision.purge import Removed, purge
from launcher.raycluster.control import active_runs, host_states, read_spec, stop
from launcher.remote.cluster_runs import ClusterRuns, run_names
from launcher.remote.fetch_checkpoints import fetch_newest_checkpoints
from launcher.ssh.parallel import call_on_all, close_all, combine_errors, connect_each
from launcher.ssh.protocol import Connection


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
    connections, unreached = connect_each(loaded, nodes)
    home: dict[str, str] = {}
    stopped: list[str] = []
    removed: dict[str, list[Removed]] = {name: [] for name in connections if purges}
    try:
        if purges and unreached:
            raise combine_errors(unreached)
        ends = [_Part(part, connections) for part in subclusters(loaded)]
        _name_forgotten(loaded, connections)
        at_work = [part for part in ends if part.asks_about_runs(force=force)]
        for part in at_work:
            part.save_and_stop_runs()
        for part in ends:
            stopped += part.stop()
        if purges and not discard_runs:
            for part in ends:
                home |= part.bring_home()
        if purges:
            click.echo("removing what was put on the hosts", err=True)
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
        purged = {"brought_home": home, "removed": lists} if purges else {}
        print_json({"cluster": loaded.cluster.name, "stopped": stopped, **purged})
    else:
        _print(home, stopped, removed)
    if unreached:
        raise combine_errors(unreached)


def _name_forgotten(loaded: LoadedCluster, connections: Mapping[str, Connection]) -> None:
    """Pools that were clusters of their own before the file gave them another name or the head:
    nothing else would say that they are still there."""
    name = loaded.cluster.name
    known = {part.cluster.name for part in subclusters(loaded)}
    listed = f"cd .launch/clusters 2>/dev/null && ls -d {shlex.quote(name)}.* 2>/dev/null; true"
    for host, said in call_on_all(
        connections, lambda each: each.check(listed, step="list")
    ).items():
        for other in sorted(set(said.split()) - known):
            click.echo(
                f"{host}: {other} is there too, which the file has no more: name pool "
                f"{other.removeprefix(f'{name}.')} as before, and down {loaded.typed} again",
                err=True,
            )


class _Part:
    """One of the clusters that a file's hosts can be joined to. `connections`: to those of its
    hosts that answer."""

    def __init__(self, loaded: LoadedCluster, connections: Mapping[str, Connection]) -> None:
        self.name = loaded.cluster.name
        self._typed = loaded.typed
        self.is_whole = loaded.part is None
        self._head = loaded.cluster.head_node.name
        names = (node.name for node in loaded.cluster.nodes)
        self.connections = {name: connections[name] for name in names if name in connections}

    def asks_about_runs(self, *, force: bool) -> bool:
        """Whether runs at work are to be saved and stopped first; so says the user. Raises RunBusy
        or Interrupted where not, HostError where it cannot be known."""
        if force:
            for run in self._running(force=True):
                click.echo(f"run '{run}' is ended: what it has not saved is lost", err=True)
                runs = self._runs()
                assert runs is not None  # this one
                runs.find(run).request_stop()  # else it would go on with the next `up`
            return False
        if self._head not in self.connections and (self.connections or self.is_whole):
            raise HostError(
                self._head,
                "the head does not answer: whether a run is at work is not known",
                fix=f"launch cluster down {self._typed} --force   stops Ray on the other hosts",
            )
        running = self._running(force=False)
        for name in running:
            if sys.stdin is None or not sys.stdin.isatty():
                fix = f"save and stop it first: launch stop {self.name}/{name}   (or add --force)"
                raise RunBusy(f"run '{name}' is at work on {self.name}", fix=fix)
            question = f"Run '{name}' is at work on {self.name}. Save and stop it?"
            if not click.confirm(question, err=True):
                raise Interrupted("nothing was stopped")
        return bool(running)

    def save_and_stop_runs(self) -> None:
        runs = self._runs()
        assert runs is not None  # one of them is at work
        for name in runs.running():
            save_and_stop(runs.find(name))

    def _running(self, *, force: bool) -> list[str]:
        """Raises HostError where it cannot be known, unless that does not matter."""
        try:
            return active_runs(self.connections, self.name)
        except (HostError, HostsFailed):
            if not force:
                raise
            return []

    def stop(self) -> list[str]:
        """Names of the hosts where something was running."""
        before = host_states(self.connections, self.name)
        stop(self.connections, self.name)
        return [node for node, state in before.items() if state.is_running]

    def bring_home(self) -> dict[str, str]:
        runs = self._runs()
        if runs is None:
            return {}
        with BringUpView() as view:
            home = fetch_newest_checkpoints(runs, self.connections, view.sent)
        return home if self.is_whole else {f"{self.name}/{run}": at for run, at in home.items()}

    def purge(self, connection: Connection) -> list[Removed]:
        return purge(connection, self.name)

    def _runs(self) -> ClusterRuns | None:
        """None where there are none. Raises HostError where there are some of which no host has a
        record."""
        for host in self.connections.values():
            if (spec := read_spec(host, self.name)) is not None:
                head = self.connections.get(spec.head.name, host)
                return ClusterRuns(read_spec(head, self.name) or spec, head)
        for host in self.connections.values():
            if names := run_names(host, self.name):
                raise HostError(
                    host.name,
                    f"it has run '{names[0]}', of which no host has a record",
                    fix="look at ~/.launch/clusters there, or give it up: add --discard-runs",
                )
        return None


def _print(
    home: Mapping[str, str], stopped: Sequence[str], removed: Mapping[str, Sequence[Removed]]
) -> None:
    for run, path in home.items():
        click.echo(f"run '{run}': its newest checkpoint is at {path}")
    click.echo(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")
    for node, items in removed.items():
        click.secho(node, bold=True)
        for item in items:
            click.echo(f"  removed ~/.launch/{item.path}  {format_bytes(item.bytes)}")
        if not items:
            click.echo("  there was nothing to remove")
