"""The columns of the sizing table: ours, and the guide's beside them."""

from __future__ import annotations

from collections.abc import Callable

from launcher.cli.render.table import Column, Row
from launcher.formatting import format_bytes, format_count
from launcher.planner.size_table import TOLERANCE


def _ratio(guide: float | None, ours: float) -> float | None:
    """Guide / ours; None where the guide has no figure."""
    return None if guide is None else guide / ours


def _parameters_ratio(row: Row) -> float | None:
    return _ratio(row["guide"].get("parameters"), row["parameters"]["total"])


def _flops_ratio(row: Row) -> float | None:
    return _ratio(row["guide"].get("flops_per_token"), row["flops_per_token"])


def _guide_column(key: str, ratio: Callable[[Row], float | None]) -> Column:
    """The guide's figure with a mark: off by more than the tolerance, and how far."""

    def is_off(row: Row) -> bool:
        return abs((ratio(row) or 1) - 1) > TOLERANCE

    def cell(row: Row) -> str:
        off = ratio(row)
        if off is None:
            return "-"
        return f"{format_count(row['guide'][key])} {f'✗ x{off:.2f}' if is_off(row) else '✓'}"

    def style(row: Row) -> str:
        return "dim" if ratio(row) is None else "red" if is_off(row) else "green"

    return Column("guide says", cell, style=style)


SIZE_COLUMNS = [
    Column("size", lambda row: row["name"], style=lambda row: "bold"),
    Column("dim", lambda row: f"{row['dim']}", right=True),
    Column("heads", lambda row: f"{row['heads']}", right=True),
    Column("context", lambda row: f"{row['sequence_length']} {row['window_pattern']}", right=True),
    Column("params", lambda row: format_count(row["parameters"]["total"]), right=True),
    _guide_column("parameters", _parameters_ratio),
    Column("FLOP/tok", lambda row: format_count(row["flops_per_token"]), right=True),
    _guide_column("flops_per_token", _flops_ratio),
    Column("state", lambda row: format_bytes(row["state_bytes"]), right=True),
]
