"""How the rows of a step, or of an evaluation, are dealt out to ranks of unequal strength."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def deal(rows: int, weights: Sequence[float]) -> list[range]:
    """Consecutive rows 0 ... rows - 1 for each rank, in rank order, in proportion to its weight.

    What is left after whole rows goes to the largest remainders, the first ranks of equal ones
    (Hamilton's method).
    """
    total = sum(weights)
    exact = [rows * weight / total for weight in weights]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda rank: counts[rank] - exact[rank])
    for rank in by_remainder[: rows - sum(counts)]:
        counts[rank] += 1
    ends = [0, *itertools.accumulate(counts)]
    return [range(start, end) for start, end in itertools.pairwise(ends)]
