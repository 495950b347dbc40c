"""What is foreseen of a training, as people read it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from launcher.formatting import format_bytes, format_duration, format_energy
from launcher.planner.estimate import Estimate, HostMemory
from launcher.planner.run_plan import RunPlan
from launcher.planner.verdict import verdict

BAR_WIDTH = 24


def estimate_rows(plan: RunPlan) -> list[tuple[str, str]]:
    """Name and words of each line: the verdict first."""
    prospect = plan.estimate
    speed, spread = prospect.tokens_per_second, prospect.spread
    steps = prospect.recipe.steps_total
    horizon = f"{format_duration(3600 * prospect.hours)} for {steps:,} step{'s' * (steps != 1)}"
    if steps != 1000:
        horizon += f"; {format_duration(prospect.seconds_of(1000))} for 1,000"
    rows = [
        ("verdict", verdict(plan)),
        (
            "speed",
            f"{speed:,.0f} tok/s ({speed / spread:,.0f} to {speed * spread:,.0f}), "
            f"{format_duration(prospect.step.seconds)} a step; {prospect.basis_text}",
        ),
        ("time", f"{horizon}, with evaluations and checkpoints"),
        ("slowest", prospect.bottleneck),
        ("memory", _memory(prospect.hosts)),
    ]
    if (kilowatt_hours := prospect.kilowatt_hours) is not None:
        rows.append(("energy", format_energy(kilowatt_hours)))
    return rows


def _memory(hosts: Sequence[HostMemory]) -> str:
    names: dict[str, list[str]] = {}
    for host in hosts:
        if host.available_bytes is None:
            words = f"{format_bytes(host.peak_bytes)} at its peak; what there is, nobody has said"
        else:
            fits = "" if host.fits else ": does not fit"
            if host.fits and host.blocking_checkpoints:
                fits = ": no room for a copy, so steps wait while a checkpoint is written"
            peak, available = format_bytes(host.peak_bytes), format_bytes(host.available_bytes)
            words = f"{peak} of {available} {host.memory_kind}{fits}"
        names.setdefault(words, []).append(host.name)
    return "; ".join(f"{', '.join(these)} {words}".strip() for words, these in names.items())


def explanation_lines(prospect: Estimate) -> str:
    """A waterfall of a step's seconds, then where the memory of a rank goes."""
    step = prospect.step
    where = step.slowest or "this machine"
    lines = [f"a step of {step.tokens:,} tokens: {step.seconds:.3f} s, on {where}"]
    ends = list(accumulate(term.seconds for term in step.terms))
    scale, reached = BAR_WIDTH / max(ends), 0.0
    for term in step.terms:
        start, end = sorted((reached, reached + term.seconds))
        reached += term.seconds
        bar = " " * round(start * scale) + "█" * max(1, round((end - start) * scale))
        lines.append(
            f"  {term.name:<10}{term.seconds:>9.3f} s  {bar:<{BAR_WIDTH + 1}}  {term.detail}"
        )
    if prospect.correction != 1:
        lines.append(
            f"  all that computes took x{prospect.correction:.2f} of what its rates give in "
            f"{prospect.calibrated_from}: its seconds here are corrected by that"
        )
    if len(step.busy_seconds) > 1:
        each = ", ".join(f"{host} {seconds:.2f} s" for host, seconds in step.busy_seconds.items())
        lines.append(f"  each host computes: {each}")
    peak = prospect.hosts[0].peak
    parts = ", ".join(
        f"{name} {format_bytes(value)}" for name, value in vars(peak).items() if value
    )
    return "\n".join([*lines, f"memory of a rank: {parts}"])
