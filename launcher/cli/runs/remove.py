"""`launch runs remove RUN...`: runs that nobody needs any more."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache

import click

from launcher.cli.options import cluster_option, json_option
from launcher.cli.render.table import print_json
from launcher.errors import InputError, Interrupted, LaunchError, NotFound
from launcher.formatting import format_bytes
from launcher.operations.run_address import find_mirror, resolve_run
from launcher.remote.remove import RemoteRemoval, Removable
from launcher.runs.folder import RUN_NAME, RunFolder, find_run, runs_home
from launcher.runs.remove import LocalRemoval
from launcher.runs.run import run_address
from launcher.ssh.protocol import Connection


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--here", is_flag=True, help="Only what this machine has; hosts are not asked.")
@cluster_option
@json_option
def command(
    runs: tuple[str, ...], yes: bool, here: bool, cluster: str | None, as_json: bool
) -> None:
    """Remove runs for good, their checkpoints too: from here, or from all hosts of their cluster.

    All hosts have to answer: one that kept a copy would bring the run back. All runs are looked for
    before the first one is removed; those at work are refused.
    """
    with ExitStack() as stack:
        find = _Finder(stack, here=here)
        each = [find(*resolve_run(name, cluster)) for name in runs]
        found = list({run.name: run for run in each}.values())
        if not yes:
            _ask(found)
        removed: list[Removable] = []
        try:
            for run in found:
                run.remove()
                removed.append(run)
                if not as_json:
                    click.echo(f"removed run '{run.name}', {format_bytes(run.bytes)}")
        finally:
            if as_json:
                print_json({"removed": [{"run": r.name, "bytes": r.bytes} for r in removed]})


class _Finder:
    """Stays connected to the hosts of each cluster while `stack` lasts."""

    def __init__(self, stack: ExitStack, *, here: bool) -> None:
        self._stack = stack
        self._here = here
        self._connect = cache(self._open)

    def __call__(self, where: str, name: str) -> Removable:
        """`where`: as from `locate`. Raises NotFound, RunBusy, HostError."""
        if self._here and where != "local":
            seen = find_mirror(where, name)
            if seen is None:
                raise NotFound(f"this machine has nothing of run '{name}' of {where}")
            return LocalRemoval.of(seen.folder, run_address(seen), stays_there=True)
        if where == "local":
            folder = RunFolder(runs_home() / name)
            there = folder.path.is_dir() or folder.path.is_symlink()
            if not (RUN_NAME.fullmatch(name) and there):
                find_run(name)  # says which there are
            return LocalRemoval.of(folder, name)  # also what was cut off before it had a run.json
        connections, cluster = self._connect(where)
        try:
            return RemoteRemoval.find(connections, cluster, name)
        except NotFound:
            seen = find_mirror(where, name)
            if seen is None:
                raise
            return LocalRemoval.of(seen.folder, run_address(seen))

    def _open(self, cluster: str) -> tuple[dict[str, Connection], str]:
        from launcher.config.cluster_file import load_cluster
        from launcher.config.loaded_cluster import require_addresses
        from launcher.ssh.parallel import close_all, connect_all

        try:
            loaded = load_cluster(cluster)
            nodes = tuple(loaded.cluster.nodes)
            require_addresses(loaded, nodes)
            connections = connect_all(loaded, nodes)
        except LaunchError as error:
            fix = "launch runs remove --here ...   removes what this machine has of it"
            error.fix = f"{error.fix}\n{fix}" if error.fix else fix
            raise
        self._stack.callback(close_all, connections)
        return connections, loaded.cluster.name


def _ask(found: Sequence[Removable]) -> None:
    """Raises InputError where nobody can answer, Interrupted where the answer is no."""
    whole = _names([run for run in found if not run.stays_there], "for good")
    here = _names([run for run in found if run.stays_there], "from this machine only")
    names = "; ".join(filter(None, (whole, here)))
    if sys.stdin is None or not sys.stdin.isatty():
        raise InputError(f"this removes {names}", fix="add --yes")
    if not click.confirm(f"Remove {names}?", err=True):
        raise Interrupted("nothing was removed")


def _names(runs: Sequence[Removable], how: str) -> str:
    names = ", ".join(f"{run.name} ({format_bytes(run.bytes)})" for run in runs)
    return f"{names} {how}" if names else ""
