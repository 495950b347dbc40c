"""The estimate of a run, as people read it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from launcher.cli.render.table import Column
from launcher.formatting import format_bool, format_bytes, format_duration, format_energy
from launcher.planner.estimate import Estimate, HostMemory
from launcher.planner.run_plan import RunPlan
from launcher.planner.verdict import verdict

BAR_WIDTH = 24


def estimate_rows(plan: RunPlan) -> list[tuple[str, str]]:
    """Return name and text of each line, the verdict first."""
    estimate = plan.estimate
    speed, spread = estimate.tokens_per_second, estimate.spread
    steps = estimate.recipe.steps_total
    horizon = f"{format_duration(3600 * estimate.hours)} for {steps:,} step{'s' * (steps != 1)}"
    if steps != 1000:
        horizon += f"; {format_duration(estimate.seconds_of(1000))} for 1,000"
    rows = [
        ("verdict", verdict(plan)),
        (
            "speed",
            f"{speed:,.0f} tok/s ({speed / spread:,.0f} to {speed * spread:,.0f}), "
            f"{format_duration(estimate.step.seconds)} a step; {estimate.basis_text}",
        ),
        ("time", f"{horizon}, with evaluations and checkpoints"),
        ("slowest", estimate.bottleneck),
        ("memory", _memory(estimate.hosts)),
    ]
    if (kilowatt_hours := estimate.kilowatt_hours) is not None:
        rows.append(("energy", format_energy(kilowatt_hours)))
    return rows


def _memory(hosts: Sequence[HostMemory]) -> str:
    hosts_by_text: dict[str, list[str]] = {}
    for host in hosts:
        if host.available_bytes is None:
            text = f"{format_bytes(host.peak_bytes)} at its peak; what there is, nobody has said"
        else:
            fits = "" if host.fits else ": does not fit"
            if host.fits and host.blocking_checkpoints:
                fits = ": no room for a copy, so steps wait while a checkpoint is written"
            peak, available = format_bytes(host.peak_bytes), format_bytes(host.available_bytes)
            text = f"{peak} of {available} {host.memory_kind}{fits}"
        hosts_by_text.setdefault(text, []).append(host.name)
    return "; ".join(
        f"{', '.join(host_names)} {text}".strip() for text, host_names in hosts_by_text.items()
    )


def explanation_lines(estimate: Estimate) -> str:
    """A waterfall of a step's seconds, then where the memory of a rank goes."""
    step = estimate.step
    slowest_host = step.slowest or "this machine"
    lines = [f"a step of {step.tokens:,} tokens: {step.seconds:.3f} s, on {slowest_host}"]
    ends = list(accumulate(term.seconds for term in step.terms))
    scale, reached = BAR_WIDTH / max(ends), 0.0
    for term in step.terms:
        start, end = sorted((reached, reached + term.seconds))
        reached += term.seconds
        bar = " " * round(start * scale) + "█" * max(1, round((end - start) * scale))
        lines.append(
            f"  {term.name:<10}{term.seconds:>9.3f} s  {bar:<{BAR_WIDTH + 1}}  {term.detail}"
        )
    if estimate.correction != 1:
        lines.append(
            f"  all that computes took x{estimate.correction:.2f} of what its rates give in "
            f"{estimate.calibrated_from}: its seconds here are corrected by that"
        )
    if len(step.busy_seconds) > 1:
        per_host = ", ".join(
            f"{host} {seconds:.2f} s" for host, seconds in step.busy_seconds.items()
        )
        lines.append(f"  each host computes: {per_host}")
    peak = estimate.hosts[0].peak
    parts = ", ".join(
        f"{name} {format_bytes(value)}" for name, value in vars(peak).items() if value
    )
    return "\n".join([*lines, f"memory of a rank: {parts}"])


ALTERNATIVE_COLUMNS = [
    Column("or", lambda row: row["what"]),
    Column("tok/s", lambda row: f"{row['tokens_per_second']['expected']:,.0f}", right=True),
    Column("a step", lambda row: format_duration(row["step_seconds"]), right=True),
    Column("horizon", lambda row: format_duration(3600 * row["hours"]), right=True),
    Column(
        "fits",
        lambda row: format_bool(row["fits"]),
        style=lambda row: "red" if row["fits"] is False else "",
    ),
    Column("with", lambda row: row["options"] or ""),
]
