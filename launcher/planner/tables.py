"""The guide's tables for one's own machines: sizes, horizons, speeds, what is realistic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from launcher.config.cluster_hosts import ClusterHosts
from launcher.errors import InputError
from launcher.formatting import (
    format_bool,
    format_bytes,
    format_count,
    format_duration,
    format_energy,
)
from launcher.planner.calibration import load_calibration
from launcher.planner.hardware import find_hardware
from launcher.planner.published_guide import Claim, claims
from launcher.planner.run_plan import RunPlan, make_plan, with_tokens_per_step
from launcher.planner.size_table import Size
from launcher.planner.verdict import verdict
from nanochat.sizes import flops_per_token, parameter_counts

MAX_ROWS = 2**20  # of a step
GUIDE_TOKENS_PER_STEP = 2048  # of its table of CPU speeds, though it does not say so


@dataclass(frozen=True)
class GuideRow:
    """One size."""

    size: Size
    plan: RunPlan
    """The plan of its recipe."""
    short_plan: RunPlan
    """The plan with steps as short as the guide's, but with a row for every rank."""


@dataclass(frozen=True)
class GuidePage:
    cluster: str
    options: str
    """The options of a command line that select the cluster."""
    rows: tuple[GuideRow, ...]
    claims: tuple[Claim, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "cluster": self.cluster,
            "sizes": [_row_json(row) for row in self.rows],
            "claims": [claim.as_json() for claim in self.claims],
        }


def make_guide_page(sizes: Sequence[Size], hosts: ClusterHosts | None) -> GuidePage:
    """Plan every size on some hosts; None is this machine."""
    hardware, others = find_hardware(hosts, workers=1)
    calibration = load_calibration()
    ranks = sum(machine.ranks for machine in hardware.machines)
    rows = []
    for size in sizes:
        length = size.model.sequence_length
        count, short_plan = max(GUIDE_TOKENS_PER_STEP // length, ranks), None
        while short_plan is None and count <= MAX_ROWS:
            recipe = with_tokens_per_step(size.recipe, count * length)
            short_plan = make_plan(size.name, recipe, hardware, others, calibration)
            count *= 2  # with unequal shares so few rows may leave a host without any
        if short_plan is None:
            raise InputError(
                f"the shares of {hardware.name} leave a host none of {MAX_ROWS:,} rows of a step",
                fix="a larger `share` for it in the cluster file",
            )
        # None if the recipe has fewer rows than hosts
        plan = make_plan(size.name, size.recipe, hardware, others, calibration) or short_plan
        rows.append(GuideRow(size, plan, short_plan))
    return GuidePage(hardware.name, hardware.options, tuple(rows), tuple(claims()))


def tables(page: GuidePage) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return title, column heads and cells of each table, except the claims."""
    return [
        (
            "Sizes",
            ["size", "dim", "heads", "params", "guide", "FLOPs/token", "guide", "most memory"],
            [_size_cells(row) for row in page.rows],
        ),
        (
            f"Horizons on {page.cluster}",
            ["size", "steps x tokens", "tokens", "per scaling parameter", "time", "energy", "fits"],
            [_horizon_cells(row) for row in page.rows],
        ),
        (
            f"Speed on {page.cluster}",
            ["size", "tokens a step", "tok/s", "guide", "a step", "guide", "1,000 steps", "guide"],
            [_speed_cells(row) for row in page.rows],
        ),
        (
            f"What is realistic on {page.cluster}",
            ["size", "verdict"],
            [[row.size.name, verdict(row.plan)] for row in page.rows],
        ),
    ]


def basis_text(page: GuidePage) -> str:
    """Return where the speeds come from."""
    return page.rows[0].plan.estimate.basis_text


def _size_cells(row: GuideRow) -> list[str]:
    model, guide = row.size.model, row.size.guide
    return [
        row.size.name, str(model.dim), str(model.heads),
        format_count(parameter_counts(model).total), _or_dash(guide.parameters, format_count),
        format_count(flops_per_token(model)), _or_dash(guide.flops_per_token, format_count),
        format_bytes(max(host.peak.total for host in row.plan.estimate.hosts)),
    ]  # fmt: skip


def _horizon_cells(row: GuideRow) -> list[str]:
    estimate = row.plan.estimate
    recipe = estimate.recipe
    tokens = recipe.steps_total * recipe.tokens_per_step
    ratio = tokens / parameter_counts(recipe.model).scaling
    return [
        row.size.name, f"{recipe.steps_total:,} x {recipe.tokens_per_step:,}",
        format_count(tokens), f"{ratio:.3g}", format_duration(3600 * estimate.hours),
        _or_dash(estimate.kilowatt_hours, format_energy), format_bool(estimate.fits),
    ]  # fmt: skip


def _speed_cells(row: GuideRow) -> list[str]:
    estimate, guide = row.short_plan.estimate, row.size.guide
    return [
        row.size.name, f"{estimate.step.tokens:,}", _rate(estimate.tokens_per_second),
        _or_dash(guide.cpu_tokens_per_second, lambda value: f"{value:g}"),
        format_duration(estimate.step.seconds), _or_dash(guide.seconds_per_step, format_duration),
        format_duration(estimate.seconds_of(1000)),
        _or_dash(guide.hours_per_1000_steps, lambda hours: format_duration(3600 * hours)),
    ]  # fmt: skip


def _rate(tokens_per_second: float) -> str:
    return f"{tokens_per_second:,.0f}" if tokens_per_second >= 99.5 else f"{tokens_per_second:.3g}"


def _or_dash(value: float | None, shown: Any) -> str:
    return "-" if value is None else str(shown(value))


def _row_json(row: GuideRow) -> dict[str, Any]:
    estimate = row.plan.estimate
    recipe = estimate.recipe
    return {
        "name": row.size.name,
        "horizon": {
            "steps": recipe.steps_total,
            "tokens_per_step": recipe.tokens_per_step,
            **estimate.figures(),
        },
        "peak_bytes": max(host.peak_bytes for host in estimate.hosts),
        "short_steps": {"tokens_per_step": row.short_plan.estimate.step.tokens}
        | row.short_plan.estimate.figures(),
        "basis": estimate.basis,
        "verdict": verdict(row.plan),
        "guide": row.size.guide.figures(),
    }
