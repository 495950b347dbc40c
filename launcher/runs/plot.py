"""Curves of runs as one picture. Needs matplotlib, of the extra [plot]."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from launcher.runs.history import RunHistory, moving_average

INCHES = (11.0, 10.0)
DOTS_PER_INCH = 130
# Okabe and Ito (2008): told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LONG_HOURS = 2.0  # shorter runs in minutes: 0.02 h says little
SMOOTH_PARTS = 50  # the mean line is over a fiftieth of the steps


def plot_runs(histories: Sequence[RunHistory], path: Path) -> None:
    """Write a PNG, SVG or PDF, as the name ends: loss and validation bits per byte over tokens and
    over time, tokens per second over time with restarts marked. Time of steps that were lost with
    a restart and made again is shaded."""
    longest = max(hours for history in histories for hours in history.hours)
    unit, per_hour = ("hours", 1) if longest > LONG_HOURS else ("minutes", 60)
    histories = [history.scaled(per_hour) for history in histories]
    figure = Figure(figsize=INCHES, layout="constrained")
    grid = figure.add_gridspec(3, 2, height_ratios=(3, 3, 2))
    time = f"{unit} of training"
    panels = [
        (grid[0, 0], "loss, nats per token", "tokens", "tokens", "loss"),
        (grid[0, 1], "loss, nats per token", time, "hours", "loss"),
        (grid[1, 0], "validation, bits per byte", "tokens", "evaluated_tokens", "val_bpb"),
        (grid[1, 1], "validation, bits per byte", time, "evaluated_hours", "val_bpb"),
        (grid[2, :], "tokens per second", time, "hours", "tokens_per_second"),
    ]
    for cell, title, x_title, x, y in panels:
        axes = figure.add_subplot(cell)
        for history, colour in zip(histories, cycle(COLOURS), strict=False):
            marker = "o" if y == "val_bpb" else ""
            _draw_line(axes, getattr(history, x), getattr(history, y), colour, history.name, marker)
            if x_title == time:  # the line leaps over steps that were lost: say why
                for begin, end in history.replayed_spans:
                    axes.axvspan(begin, end, color=colour, alpha=0.12, linewidth=0)
        axes.set_xlim(left=0)
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel(x_title, fontsize=9)
        if x_title == "tokens":
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    for history, colour in zip(histories, cycle(COLOURS), strict=False):
        _mark_restarts(figure.axes[-1], history, colour)
    figure.axes[-1].set_ylim(bottom=0)
    if any(history.restart_hours for history in histories):
        marks = "dotted: restarts"
        if any(history.replayed_spans for history in histories):
            marks += "; shaded: steps that were lost and made again"
        figure.axes[-1].set_title(marks, loc="right", fontsize=9)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4, frameon=False)
    # Without a date and with ids that are not drawn by chance the same runs are the same file.
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower())
    with rc_context({"svg.hashsalt": "launch"}):
        figure.savefig(path, dpi=DOTS_PER_INCH, metadata=metadata)


def _mark_restarts(axes: Axes, history: RunHistory, colour: str) -> None:
    for hour in history.restart_hours:
        axes.axvline(hour, color=colour, linestyle=":", linewidth=1.2)


def _draw_line(
    axes: Axes, x: Sequence[float], y: Sequence[float], colour: str, name: str, marker: str
) -> None:
    """Every step faintly, their mean clearly; one that has few steps, as it is."""
    steps = len(y) // SMOOTH_PARTS
    if steps > 1:
        axes.plot(x, y, color=colour, linewidth=0.6, alpha=0.3)
    mean = moving_average(y, max(1, steps))
    axes.plot(x, mean, color=colour, linewidth=1.5, label=name, marker=marker, markersize=3)
