"""`launch runs remove RUN...`: runs that nobody needs any more."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache

import click

from launcher.cli.output import json_option, print_json, size
from launcher.cli.place import cluster_option, locate, mirrored
from launcher.errors import InputError, NotFound
from launcher.runs.folder import RUN_NAME, RunFolder, find_run, runs_home
from launcher.runs.removal import Removable, RunHere, RunThere
from launcher.runs.run import shown_name
from launcher.transport.connection import Connection


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@cluster_option
@json_option
def command(runs: tuple[str, ...], yes: bool, cluster: str | None, as_json: bool) -> None:
    """Remove runs for good, their checkpoints too: from here, or from all hosts of their cluster.

    All are looked for before the first one is removed. Those at work are refused.
    """
    places = list(dict.fromkeys(locate(name, cluster) for name in runs))
    with ExitStack() as stack:
        find = _Finder(stack)
        found = [find(where, name) for where, name in places]
        if not yes:
            _ask(found)
        for run in found:
            run.remove()
            if not as_json:
                click.echo(f"removed run '{run.name}', {size(run.bytes)}")
    if as_json:
        print_json({"removed": [{"run": run.name, "bytes": run.bytes} for run in found]})


class _Finder:
    """Stays connected to the hosts of each cluster while `stack` lasts."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._connect = cache(self._open)

    def __call__(self, where: str, name: str) -> Removable:
        """`where`: as from `locate`. Raises NotFound, RunBusy, HostError."""
        if where == "local":
            folder = RunFolder(runs_home() / name)
            if not (RUN_NAME.fullmatch(name) and folder.path.is_dir()):
                find_run(name)  # says which there are
            return RunHere.of(folder, name)  # also what was cut off before it had a run.json
        try:
            return RunThere.find(*self._connect(where), name)
        except NotFound:  # the cluster's file, or the run on its hosts
            seen = mirrored(where, name)
            if seen is None:
                raise
            return RunHere.of(seen.folder, shown_name(seen))

    def _open(self, cluster: str) -> tuple[dict[str, Connection], str]:
        from launcher.config.cluster import lacks_address, load_cluster, require_addresses
        from launcher.transport.together import close_all, connect_all

        loaded = load_cluster(cluster)
        nodes = tuple(loaded.cluster.nodes)
        if all(map(lacks_address, nodes)):  # shipped under the name of one that is gone
            raise NotFound(f"no machines of cluster {cluster} are known any more")
        require_addresses(loaded, nodes)
        connections = connect_all(loaded, nodes)
        self._stack.callback(close_all, connections)
        return connections, loaded.cluster.name


def _ask(found: Sequence[Removable]) -> None:
    """Raises InputError where nobody can answer, Abort where the answer is no."""
    names = ", ".join(f"{run.name} ({size(run.bytes)})" for run in found)
    if not sys.stdin.isatty():
        raise InputError(f"this removes {names} for good", fix="add --yes")
    click.confirm(f"Remove {names} for good?", abort=True, err=True)
