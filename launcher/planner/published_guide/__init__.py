"""Check each line of the published guide that has a figure or a judgement against our own."""

from __future__ import annotations

from launcher.planner.published_guide.claim import Claim, Figure, Holds
from launcher.planner.published_guide.horizons import horizon_claims
from launcher.planner.published_guide.realistic import realistic_claims
from launcher.planner.published_guide.sizes import size_claims
from launcher.planner.published_guide.speeds import speed_claims

__all__ = ["Claim", "Figure", "Holds", "claims", "markdown_lines"]


def claims() -> list[Claim]:
    """Return all claims, in the guide's order."""
    return [*size_claims(), *horizon_claims(), *speed_claims(), *realistic_claims()]


def markdown_lines(claims: list[Claim]) -> list[str]:
    """Format a Markdown table with a line per claim."""
    rows = [
        (claim.line, claim.quote, str(claim.ours or "-"), claim.holds.value, claim.why)
        for claim in claims
    ]
    head = [("where", "the guide says", "we say", "holds", "why"), ("---",) * 5]
    return [f"| {' | '.join(row)} |" for row in [*head, *rows]]
