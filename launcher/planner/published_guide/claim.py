"""One line of the published guide: its figure, ours, and whether it holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from launcher.config.paths import shipped_folder
from launcher.config.recipe import load_recipe
from launcher.planner.size_table import TOLERANCE, Size


class Holds(StrEnum):
    YES = "yes"
    NO = "no"
    ONLY_IF = "only if"  # under a condition, which `why` says


@dataclass(frozen=True)
class Figure:
    """`high`: of a range that begins at `value`."""

    value: float
    unit: str
    high: float | None = None

    def __str__(self) -> str:
        high = "" if self.high is None else f" to {digits(self.high)}"
        return f"{digits(self.value)}{high} {self.unit}"

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"value": self.value, "unit": self.unit}
        return found if self.high is None else found | {"high": self.high}


@dataclass(frozen=True)
class Claim:
    """`quote`: the guide's figure or judgement as it has it, `line`: which table and row. `guide`:
    None where it has a judgement without a figure; `ours`: None where only samples could show."""

    quote: str
    line: str
    guide: Figure | None
    ours: Figure | None
    holds: Holds
    why: str

    def as_json(self) -> dict[str, Any]:
        return {
            "quote": self.quote,
            "line": self.line,
            "guide": self.guide and self.guide.as_json(),
            "ours": self.ours and self.ours.as_json(),
            "holds": self.holds.value,
            "why": self.why,
        }


def compare_claim(
    line: str,
    quote: str,
    guide: float,
    ours: float,
    unit: str,
    why: str,
    holds: Holds | None = None,
) -> Claim:
    """A claim whose two figures have one unit. Without `holds`, it does where they are as near as
    the guide's rounding."""
    if holds is None:
        holds = Holds.YES if abs(guide / ours - 1) <= TOLERANCE else Holds.NO
    return Claim(quote, line, Figure(guide, unit), Figure(ours, unit), holds, why)


def digits(number: float) -> str:
    """Whole numbers as they are, others to three digits."""
    if number == int(number):
        return f"{int(number):,}"
    return f"{number:,.{max(0, 2 - math.floor(math.log10(abs(number))))}f}"


@cache
def shipped(name: str) -> Size:
    """The size as it came, whatever the user's own recipe of that name says."""
    loaded = load_recipe(str(shipped_folder("recipe") / f"{name}.yaml"))
    return Size(loaded.name, loaded.recipe)


def guide_figure(name: str, key: str) -> float:
    """What the recipe's `guide:` has. Raises KeyError where the guide says nothing."""
    return shipped(name).guide.figures()[key]
