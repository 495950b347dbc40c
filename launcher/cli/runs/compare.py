"""`launch runs compare RUN...`: runs side by side."""

from __future__ import annotations

import re
from functools import partial

import click

from launcher.cli.options import cluster_option, json_option, notify
from launcher.cli.render.table import Column, Row, print_json, print_table
from launcher.errors import InputError
from launcher.operations.run_address import open_run_to_read
from launcher.runs.compare import LOSS_STEPS, compare_runs
from launcher.runs.folder import RunFolder
from launcher.runs.history import RunHistory
from launcher.runs.run import run_address
from launcher.runs.state import RunState

HASH, HASH_CHARACTERS = re.compile("[0-9a-f]{64}"), 12


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@cluster_option
@json_option
def command(runs: tuple[str, ...], cluster: str | None, as_json: bool) -> None:
    """Show what runs reached side by side, at equal tokens too, and what was set differently."""
    if len(runs) < 2:
        raise InputError("a comparison needs two runs", fix="launch runs compare RUN OTHER")
    document = compare_runs(*zip(*(_read(name, cluster) for name in runs), strict=True))
    if as_json:
        print_json(document)
        return
    rows = [{"key": _title(key), "values": row} for key, row in document["figures"].items()]
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


def _title(figure: str) -> str:
    """One step's loss stands beside means."""
    if figure == "train_loss":
        return "loss of the last step"
    return f"{figure}, mean of {LOSS_STEPS} steps" if figure.startswith("loss at ") else figure


def _read(name: str, cluster: str | None) -> tuple[RunFolder, RunState, RunHistory]:
    with open_run_to_read(name, cluster, notify=notify) as run:
        alive = run.refresh()
        state = RunState.of(run.folder, alive if run.is_asked else None)
        return run.folder, state, RunHistory.of(run.folder, run_address(run))


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
