"""The columns of the list of runs."""

from __future__ import annotations

import time

from launcher.cli.render.table import Column, Row

TITLES = {"train_loss": "loss", "tokens_per_second": "tok/s"}
COLOURS = {
    "running": "green", "preparing": "green", "waiting": "yellow", "stopping": "yellow",
    "interrupted": "yellow", "failed": "red", "gone": "red",
}  # fmt: skip


def _figure(key: str, form: str) -> Column:
    def cell(row: Row) -> str:
        return "-" if row[key] is None else format(row[key], form)

    return Column(TITLES.get(key, key), cell, right=True)


def _name(row: Row) -> str:
    return row["run"] if row["cluster"] == "local" else f"{row['cluster']}/{row['run']}"


def _restarts(row: Row) -> str:
    """With the seconds that the last fault has cost."""
    recovery = row["recovery"]
    took = "" if recovery is None else f" ({recovery['seconds']:.0f} s)"
    return f"{row['restarts']}{took}" if row["restarts"] else "-"


RUN_COLUMNS = [
    Column("run", _name),
    Column("recipe", lambda row: row["recipe"]),
    Column("status", lambda row: row["status"], style=lambda row: COLOURS.get(row["status"], "")),
    Column("step", lambda row: f"{row['step']:,}/{row['steps']:,}", right=True),
    _figure("train_loss", ".3f"),
    _figure("val_bpb", ".4f"),
    _figure("tokens_per_second", ",.0f"),
    Column("restarts", _restarts, right=True),
    Column("resizes", lambda row: str(row["resizes"] or "-"), right=True),
    Column("started", lambda row: time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created"]))),
]
