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
from launcher.remote.remove import RemoteRemoval, RunRemoval
from launcher.runs.folder import RUN_NAME, RunFolder, find_run, runs_home
from launcher.runs.remove import LocalRemoval
from launcher.runs.run import run_address
from launcher.ssh.protocol import Connection


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--here", "local_only", is_flag=True, help="Only what this machine has; hosts are not asked."
)
@cluster_option
@json_option
def command(
    runs: tuple[str, ...], yes: bool, local_only: bool, cluster: str | None, as_json: bool
) -> None:
    """Remove runs for good, their checkpoints too: from here, or from all hosts of their cluster.

    All hosts have to answer: one that kept a copy would bring the run back. All runs are looked for
    before the first one is removed; those at work are refused.
    """
    with ExitStack() as stack:
        find = _Finder(stack, local_only=local_only)
        matches = [find(*resolve_run(name, cluster)) for name in runs]
        removals = list({run.name: run for run in matches}.values())
        if not yes:
            _confirm(removals)
        removed: list[RunRemoval] = []
        try:
            for run in removals:
                run.remove()
                removed.append(run)
                if not as_json:
                    click.echo(f"removed run '{run.name}', {format_bytes(run.bytes)}")
        finally:
            if as_json:
                print_json({"removed": [{"run": r.name, "bytes": r.bytes} for r in removed]})


class _Finder:
    """Stays connected to the hosts of each cluster while `stack` lasts."""

    def __init__(self, stack: ExitStack, *, local_only: bool) -> None:
        self._stack = stack
        self._local_only = local_only
        self._connect = cache(self._open)

    def __call__(self, cluster: str, name: str) -> RunRemoval:
        """`cluster`: as from `resolve_run`. Raises NotFound, RunBusy, HostError."""
        if self._local_only and cluster != "local":
            mirror = find_mirror(cluster, name)
            if mirror is None:
                raise NotFound(f"this machine has nothing of run '{name}' of {cluster}")
            return LocalRemoval.of(mirror.folder, run_address(mirror), stays_on_hosts=True)
        if cluster == "local":
            folder = RunFolder(runs_home() / name)
            exists = folder.path.is_dir() or folder.path.is_symlink()
            if not (RUN_NAME.fullmatch(name) and exists):
                find_run(name)  # says which there are
            return LocalRemoval.of(folder, name)  # also what was cut off before it had a run.json
        connections, cluster_name = self._connect(cluster)
        try:
            return RemoteRemoval.find(connections, cluster_name, name)
        except NotFound:
            mirror = find_mirror(cluster, name)
            if mirror is None:
                raise
            return LocalRemoval.of(mirror.folder, run_address(mirror))

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


def _confirm(removals: Sequence[RunRemoval]) -> None:
    """Raises InputError where nobody can answer, Interrupted where the answer is no."""
    complete = _names([run for run in removals if not run.stays_on_hosts], "for good")
    partial = _names([run for run in removals if run.stays_on_hosts], "from this machine only")
    names = "; ".join(filter(None, (complete, partial)))
    if sys.stdin is None or not sys.stdin.isatty():
        raise InputError(f"this removes {names}", fix="add --yes")
    if not click.confirm(f"Remove {names}?", err=True):
        raise Interrupted("nothing was removed")


def _names(runs: Sequence[RunRemoval], how: str) -> str:
    names = ", ".join(f"{run.name} ({format_bytes(run.bytes)})" for run in runs)
    return f"{names} {how}" if names else ""
