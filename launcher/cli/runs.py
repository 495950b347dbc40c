"""`launch runs`: every run that this machine knows of."""

from __future__ import annotations

import time
from dataclasses import asdict

import click

from launcher.cli.output import Column, Row, json_option, print_table
from launcher.runs.folder import all_mirrors, all_runs
from launcher.runs.remote import RemoteRun
from launcher.runs.state import RunState


def _figure(key: str, form: str) -> Column:
    def cell(row: Row) -> str:
        return "-" if row[key] is None else format(row[key], form)

    return Column(TITLES.get(key, key), cell, right=True)


def _name(row: Row) -> str:
    return row["run"] if row["cluster"] == "local" else f"{row['cluster']}/{row['run']}"


TITLES = {"train_loss": "loss", "tokens_per_second": "tok/s"}
COLOURS = {"running": "green", "failed": "red", "interrupted": "yellow"}
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


@click.command()
@click.option("--cluster", metavar="C", help="Of this cluster only, asked from its head.")
@json_option
def command(cluster: str | None, as_json: bool) -> None:
    """List the runs: how far, how good, how fast.

    Without --cluster: those of this machine, and those of clusters as they were seen last.
    """
    if cluster is None or cluster == "local":
        states = [RunState.of(folder) for folder in all_runs()]
        if cluster is None:
            states += [RunState.of(folder, alive=None) for folder in all_mirrors()]
    else:
        states = _ask(cluster)
    rows = [asdict(state) for state in sorted(states, key=lambda state: state.created)]
    print_table(COLUMNS, rows, as_json=as_json, empty="no runs yet: launch recipe d4")


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
