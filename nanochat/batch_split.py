"""How the rows of a step, or of an evaluation, are split among ranks of unequal speed, and
each rank's rows among its passes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

# Tokens of one forward and backward pass where a recipe leaves `micro_batch` out.
MICRO_BATCH_TOKENS = {"cpu": 4096, "cuda": 16384}
# Of the head and its loss, a part of a pass. At 32,768 ids a chunk is 2 buffers of 67 MB on a CPU,
# where 512 is the fastest of 64 to 2,048 (d4), and of 537 MB on a GPU, whose products want more
# rows. A third lives meanwhile: the next chunk's first beside the last one's two.
CHUNK_TOKENS = {"cpu": 512, "cuda": 4096}
# An untrained model loses the same on any token (ln of the vocabulary): running it on more than
# these would only put the first step off.
UNTRAINED_TOKENS = 8192


def split_rows(rows: int, weights: Sequence[float]) -> list[range]:
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


def largest_micro_batch(
    rows: int, sequence_length: int, device_type: str, pass_tokens: int | None = None
) -> int:
    """Rows per pass of a rank that has `rows` per step: in as few passes as stay within
    `pass_tokens` (default: those above), all of one size but for a last one that may be smaller."""
    tokens = MICRO_BATCH_TOKENS[device_type] if pass_tokens is None else pass_tokens
    max_rows = max(1, tokens // sequence_length)
    passes = -(-rows // max_rows)
    return -(-rows // passes)
