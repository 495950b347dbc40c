"""Runs side by side, as a person reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import click

from launcher.cli.render.table import Column, Row, print_table
from launcher.runs.compare import LOSS_STEPS

HASH, HASH_CHARACTERS = re.compile("[0-9a-f]{64}"), 12


def print_comparison(document: Mapping[str, Any]) -> None:
    """Print what `compare_runs` returns."""
    rows = [{"key": _title(key), "values": row} for key, row in document["figures"].items()]
    rows.append({"key": "", "values": [""] * len(document["runs"])})
    rows += [{"key": key, "values": row} for key, row in document["differences"].items()]
    if not document["differences"]:
        rows.append({"key": "set alike", "values": [""] * len(document["runs"])})
    columns = [Column("", lambda row: row["key"])]
    columns += [
        Column(name, partial(_cell, index), right=True)
        for index, name in enumerate(document["runs"])
    ]
    print_table(columns, rows, as_json=False)
    for warning in document["warnings"]:
        click.echo(f"note: {warning}", err=True)


def _title(figure: str) -> str:
    """One step's loss stands beside means."""
    if figure == "train_loss":
        return "loss of the last step"
    return f"{figure}, mean of {LOSS_STEPS} steps" if figure.startswith("loss at ") else figure


def _cell(index: int, row: Row) -> str:
    """Figures to five digits; hashes by their beginning, which tells them apart."""
    value = row["values"][index]
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.5g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = str(value)
    return text[:HASH_CHARACTERS] if HASH.fullmatch(text) else text
