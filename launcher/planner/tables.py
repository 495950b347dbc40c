"""The guide's tables for one's own machines: sizes, horizons, speeds, what is realistic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from launcher.errors import InputError
from launcher.formatting import (
    format_bool,
    format_bytes,
    format_count,
    format_duration,
    format_energy,
)
from launcher.planner.find_hardware import find_hardware, load_calibration
from launcher.planner.published_guide import Claim, claims
from launcher.planner.run_plan import RunPlan, make_plan, with_tokens_per_step
from launcher.planner.size_table import Size
from launcher.planner.verdict import verdict
from nanochat.sizes import flops_per_token, parameter_counts

MOST_ROWS = 2**20  # of a step
GUIDE_TOKENS_PER_STEP = 2048  # of its table of CPU speeds, though it does not say so


@dataclass(frozen=True)
class GuideRow:
    """One size. `plan`: of its recipe; `short`: of steps as short as the guide's, with a row for
    every rank."""

    size: Size
    plan: RunPlan
    short: RunPlan


@dataclass(frozen=True)
class GuidePage:
    cluster: str
    options: str  # that name it on a command line
    lines: tuple[GuideRow, ...]
    claims: tuple[Claim, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "cluster": self.cluster,
            "sizes": [_line_json(line) for line in self.lines],
            "claims": [claim.as_json() for claim in self.claims],
        }


def make_guide_page(sizes: Sequence[Size], cluster: str, pool: str | None) -> GuidePage:
    """Raises what `find_hardware` does."""
    site, others = find_hardware(cluster, pool, workers=1)
    lessons = load_calibration()
    ranks = sum(machine.ranks for machine in site.machines)
    lines = []
    for each in sizes:
        length = each.model.sequence_length
        rows, short = max(GUIDE_TOKENS_PER_STEP // length, ranks), None
        while short is None and rows <= MOST_ROWS:
            least = with_tokens_per_step(each.recipe, rows * length)
            short = make_plan(each.name, least, site, others, lessons)
            rows *= 2  # unequal shares leave some none of so few
        if short is None:
            raise InputError(
                f"the shares of {site.name} leave a host none of {MOST_ROWS:,} rows of a step",
                fix="a larger `share` for it in the cluster file",
            )
        whole = make_plan(each.name, each.recipe, site, others, lessons)
        lines.append(GuideRow(each, whole or short, short))  # fewer rows than hosts
    return GuidePage(site.name, site.options, tuple(lines), tuple(claims()))


def tables(page: GuidePage) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, heads and cells of each but the claims."""
    return [
        (
            "Sizes",
            ["size", "dim", "heads", "params", "guide", "FLOPs/token", "guide", "most memory"],
            [_size_cells(line) for line in page.lines],
        ),
        (
            f"Horizons on {page.cluster}",
            ["size", "steps x tokens", "tokens", "per scaling parameter", "time", "energy", "fits"],
            [_horizon_cells(line) for line in page.lines],
        ),
        (
            f"Speed on {page.cluster}",
            ["size", "tokens a step", "tok/s", "guide", "a step", "guide", "1,000 steps", "guide"],
            [_speed_cells(line) for line in page.lines],
        ),
        (
            f"What is realistic on {page.cluster}",
            ["size", "verdict"],
            [[line.size.name, verdict(line.plan)] for line in page.lines],
        ),
    ]


def known_from(page: GuidePage) -> str:
    """What they are of: measured or estimated."""
    return page.lines[0].plan.prospect.known_from


def _size_cells(line: GuideRow) -> list[str]:
    model, guide = line.size.model, line.size.guide
    return [
        line.size.name, str(model.dim), str(model.heads),
        format_count(parameter_counts(model).total), _or_dash(guide.parameters, format_count),
        format_count(flops_per_token(model)), _or_dash(guide.flops_per_token, format_count),
        format_bytes(max(host.peak.total for host in line.plan.prospect.hosts)),
    ]  # fmt: skip


def _horizon_cells(line: GuideRow) -> list[str]:
    prospect = line.plan.prospect
    recipe = prospect.recipe
    tokens = recipe.steps_total * recipe.tokens_per_step
    ratio = tokens / parameter_counts(recipe.model).scaling
    return [
        line.size.name, f"{recipe.steps_total:,} x {recipe.tokens_per_step:,}",
        format_count(tokens), f"{ratio:.3g}", format_duration(3600 * prospect.hours),
        _or_dash(prospect.kilowatt_hours, format_energy), format_bool(prospect.fits),
    ]  # fmt: skip


def _speed_cells(line: GuideRow) -> list[str]:
    prospect, guide = line.short.prospect, line.size.guide
    return [
        line.size.name, f"{prospect.step.tokens:,}", _rate(prospect.tokens_per_second),
        _or_dash(guide.cpu_tokens_per_second, lambda value: f"{value:g}"),
        format_duration(prospect.step.seconds), _or_dash(guide.seconds_per_step, format_duration),
        format_duration(prospect.seconds_of(1000)),
        _or_dash(guide.hours_per_1000_steps, lambda hours: format_duration(3600 * hours)),
    ]  # fmt: skip


def _rate(tokens_per_second: float) -> str:
    return f"{tokens_per_second:,.0f}" if tokens_per_second >= 99.5 else f"{tokens_per_second:.3g}"


def _or_dash(value: float | None, shown: Any) -> str:
    return "-" if value is None else str(shown(value))


def _line_json(line: GuideRow) -> dict[str, Any]:
    prospect = line.plan.prospect
    recipe = prospect.recipe
    return {
        "name": line.size.name,
        "horizon": {
            "steps": recipe.steps_total,
            "tokens_per_step": recipe.tokens_per_step,
            **prospect.figures(),
        },
        "peak_bytes": max(host.peak_bytes for host in prospect.hosts),
        "short_steps": {"tokens_per_step": line.short.prospect.step.tokens}
        | line.short.prospect.figures(),
        "basis": prospect.basis,
        "verdict": verdict(line.plan),
        "guide": line.size.guide.figures(),
    }
