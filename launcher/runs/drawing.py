"""Curves of runs as one picture. Needs matplotlib, of the extra [plot]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from launcher.runs.curves import Curve, smoothed

INCHES = (11.0, 10.0)
DOTS_PER_INCH = 130
# Okabe and Ito (2008): told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LONG_HOURS = 2.0
SMOOTH_PARTS = 50  # the mean line is over a fiftieth of the steps


def draw(curves: Sequence[Curve], path: Path) -> None:
    """Write a PNG, SVG or PDF, as the name ends: loss and validation bits per byte over tokens and
    over time, tokens per second over time with restarts marked."""
    longest = max(hours for curve in curves for hours in curve.hours)
    unit, per_hour = ("hours", 1) if longest > LONG_HOURS else ("minutes", 60)
    curves = [curve.scaled(per_hour) for curve in curves]
    figure = Figure(figsize=INCHES, layout="constrained")
    grid = figure.add_gridspec(3, 2, height_ratios=(3, 3, 2))
    panels = [
        ("loss, nats per token", "tokens", grid[0, 0], _loss_over_tokens),
        ("loss, nats per token", f"{unit} of training", grid[0, 1], _loss_over_hours),
        ("validation, bits per byte", "tokens", grid[1, 0], _bpb_over_tokens),
        ("validation, bits per byte", f"{unit} of training", grid[1, 1], _bpb_over_hours),
        ("tokens per second", f"{unit} of training", grid[2, :], _speed),
    ]
    for title, x, place, show in panels:
        axes = figure.add_subplot(place)
        _show(axes, curves, show)
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel(x, fontsize=9)
        if x == "tokens":
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    figure.axes[-1].set_ylim(bottom=0)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4, frameon=False)
    # Without a date and with ids that are not drawn by chance the same runs are the same file.
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with rc_context({"svg.hashsalt": "launch"}):
        figure.savefig(path, dpi=DOTS_PER_INCH, metadata=metadata)


def _show(
    axes: Axes, curves: Sequence[Curve], show: Callable[[Axes, Curve, str], None]
) -> None:  # fmt: skip
    for number, curve in enumerate(curves):
        show(axes, curve, COLOURS[number % len(COLOURS)])
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _loss_over_tokens(axes: Axes, curve: Curve, colour: str) -> None:
    _line(axes, curve.tokens, curve.loss, colour, curve.name)


def _loss_over_hours(axes: Axes, curve: Curve, colour: str) -> None:
    _line(axes, curve.hours, curve.loss, colour, curve.name)


def _bpb_over_tokens(axes: Axes, curve: Curve, colour: str) -> None:
    axes.plot(curve.evaluated_tokens, curve.val_bpb, color=colour, marker="o", markersize=3)


def _bpb_over_hours(axes: Axes, curve: Curve, colour: str) -> None:
    axes.plot(curve.evaluated_hours, curve.val_bpb, color=colour, marker="o", markersize=3)


def _speed(axes: Axes, curve: Curve, colour: str) -> None:
    _line(axes, curve.hours, curve.tokens_per_second, colour, curve.name)
    for hour in curve.restart_hours:
        axes.axvline(hour, color=colour, linestyle=":", linewidth=1.2)
    if curve.restart_hours:
        axes.annotate(
            "restart", (curve.restart_hours[0], 0.02), xycoords=("data", "axes fraction"),
            xytext=(3, 0), textcoords="offset points", color=colour, fontsize=8,
        )  # fmt: skip


def _line(
    axes: Axes, x: Sequence[float], y: Sequence[float], colour: str, name: str
) -> None:  # fmt: skip
    """Every step faintly, their mean clearly; one that has few steps, as it is."""
    steps = len(y) // SMOOTH_PARTS
    if steps > 1:
        axes.plot(x, y, color=colour, linewidth=0.6, alpha=0.3)
    axes.plot(x, smoothed(y, max(1, steps)), color=colour, linewidth=1.5, label=name)
