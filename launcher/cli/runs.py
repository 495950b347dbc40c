"""`launch runs`: every run that this machine knows of."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial

import click

from launcher.cli.output import Column, Row, json_option, print_json, print_table
from launcher.cli.place import cluster_option, file_of, open_run_to_read
from launcher.errors import InputError, LaunchError
from launcher.runs.comparison import compared
from launcher.runs.curves import Curve
from launcher.runs.folder import RunFolder, all_mirrors, all_runs
from launcher.runs.remote import RemoteRun
from launcher.runs.run import shown_name
from launcher.runs.state import RunState


def _figure(key: str, form: str) -> Column:
    def cell(row: Row) -> str:
        return "-" if row[key] is None else format(row[key], form)

    return Column(TITLES.get(key, key), cell, right=True)


def _name(row: Row) -> str:
    return row["run"] if row["cluster"] == "local" else f"{row['cluster']}/{row['run']}"


HASH, HASH_CHARACTERS = re.compile("[0-9a-f]{64}"), 12
ASK_SECONDS = 4.0  # for all clusters together: this is a list, not a search
TITLES = {"train_loss": "loss", "tokens_per_second": "tok/s"}
COLOURS = {"running": "green", "failed": "red", "interrupted": "yellow", "gone": "red"}
COLUMNS = [
    Column("run", _name),
    Column("recipe", lambda row: row["recipe"]),
    Column("status", lambda row: row["status"], style=lambda row: COLOURS.get(row["status"], "")),
    Column("step", lambda row: f"{row['step']:,}/{row['steps']:,}", right=True),
    _figure("train_loss", ".3f"),
    _figure("val_bpb", ".4f"),
    _figure("tokens_per_second", ",.0f"),
    Column("started", lambda row: time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created"]))),
]


@click.group(invoke_without_command=True)
@click.option("--cluster", metavar="C", help="Of this cluster only, asked from its head.")
@json_option
@click.pass_context
def command(context: click.Context, cluster: str | None, as_json: bool) -> None:
    """List the runs: how far, how good, how fast; or `compare` some of them.

    Without --cluster: those of this machine, and those of clusters that it has seen. Clusters
    with runs that were not seen to end are asked.
    """
    if context.invoked_subcommand is not None:
        if cluster is not None or as_json:
            raise click.UsageError("Options of `runs compare` stand behind it", context)
        return
    if cluster is None or cluster == "local":
        states = [RunState.of(folder) for folder in all_runs()]
        if cluster is None:
            states += _of_clusters(all_mirrors())
    else:
        states = _ask(cluster)
    rows = [asdict(state) for state in sorted(states, key=lambda state: state.created)]
    print_table(COLUMNS, rows, as_json=as_json, empty="no runs yet: launch recipe d4")


@command.command("compare")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@cluster_option
@json_option
def compare(runs: tuple[str, ...], cluster: str | None, as_json: bool) -> None:
    """Show what runs reached side by side, at equal tokens too, and what was set differently."""
    if len(runs) < 2:
        raise InputError("a comparison needs two runs", fix="launch runs compare RUN OTHER")
    document = compared(*zip(*(_read(name, cluster) for name in runs), strict=True))
    if as_json:
        print_json(document)
        return
    rows = [{"key": key, "values": row} for key, row in document["figures"].items()]
    rows.append({"key": "", "values": [""] * len(runs)})
    rows += [{"key": key, "values": row} for key, row in document["differences"].items()]
    if not document["differences"]:
        rows.append({"key": "set alike", "values": [""] * len(runs)})
    columns = [Column("", lambda row: row["key"])]
    columns += [
        Column(name, partial(_shown, place), right=True)
        for place, name in enumerate(document["runs"])
    ]
    print_table(columns, rows, as_json=False)
    for words in document["warnings"]:
        click.echo(f"note: {words}", err=True)


def _read(name: str, cluster: str | None) -> tuple[RunFolder, RunState, Curve]:
    with open_run_to_read(name, cluster) as run:
        alive = run.refresh()
        asked = run.cluster == "local" or isinstance(run, RemoteRun)
        state = RunState.of(run.folder, alive if asked else None)
        return run.folder, state, Curve.of(run.folder, shown_name(run))


def _shown(place: int, row: Row) -> str:
    """Figures to five digits; hashes by their beginning, which tells them apart."""
    value = row["values"][place]
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.5g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = str(value)
    return text[:HASH_CHARACTERS] if HASH.fullmatch(text) else text


def _of_clusters(mirrors: Sequence[RunFolder]) -> list[RunState]:
    """As their heads say, where these answer soon; else as they were seen last."""
    to_ask = {_cluster(mirror) for mirror in mirrors if mirror.summary() is None}
    answers: dict[str, dict[str, RunState]] = {}

    def ask(cluster: str) -> None:
        try:
            answers[cluster] = {state.run: state for state in _ask(file_of(cluster))}
        except InputError:  # no file, or nothing there any more
            answers[cluster] = {}
        except LaunchError:
            return

    threads = [threading.Thread(target=ask, args=(cluster,), daemon=True) for cluster in to_ask]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + ASK_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    for cluster in sorted(to_ask - answers.keys()):
        click.echo(f"{cluster} does not answer: its runs as they were seen last", err=True)
    states = []
    for mirror in mirrors:
        state = answers.get(_cluster(mirror), {}).get(mirror.name) or RunState.of(mirror)
        if state.status == "unknown" and _cluster(mirror) in answers:
            state = replace(state, status="gone")
        states.append(state)
    return states


def _cluster(mirror: RunFolder) -> str:
    return mirror.path.parents[1].name


def _ask(cluster: str) -> list[RunState]:
    from launcher.runs.heads import open_cluster_runs  # paramiko and YAML: 0.2 s

    with open_cluster_runs(cluster) as runs:
        running = runs.running()
        states = []
        for name in runs.names():
            run = RemoteRun(runs, name)
            run.mirror.update(runs.head)
            if run.folder.spec():  # another client is just making it
                states.append(RunState.of(run.folder, alive=name in running))
    return states
