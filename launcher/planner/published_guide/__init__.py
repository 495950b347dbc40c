"""Every line of the published guide that has a figure or a judgement, beside our own."""

from __future__ import annotations

from launcher.planner.published_guide import horizons, realistic, sizes, speeds
from launcher.planner.published_guide.claim import Claim, Figure, Holds

__all__ = ["Claim", "Figure", "Holds", "claims", "markdown_lines"]


def claims() -> list[Claim]:
    """In the guide's order."""
    return [*sizes.claims(), *horizons.claims(), *speeds.claims(), *realistic.claims()]


def markdown_lines(found: list[Claim]) -> list[str]:
    """A Markdown table, a line each."""
    rows = [
        (claim.line, claim.quote, str(claim.ours or "-"), claim.holds.value, claim.why)
        for claim in found
    ]
    head = [("where", "the guide says", "we say", "holds", "why"), ("---",) * 5]
    return [f"| {' | '.join(row)} |" for row in [*head, *rows]]
