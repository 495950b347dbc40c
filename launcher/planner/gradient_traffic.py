"""Network bytes of a step, predicted: what nanochat.exchange will send between ranks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from nanochat.sizes import ModelConfig, parameter_counts

GRADIENT_BYTES = {"float32": 4, "bfloat16": 2}  # of the tables'; all others' are float32
# Number of tokens of English text -> how many distinct ones are among them, with a vocabulary of
# 32,768 (means of 20 samples of rows from 0.8M tokens, 2026-11-27). Source code has about as many.
DISTINCT_TOKENS = {
    512: 235, 1_024: 403, 2_048: 736, 4_096: 1_250, 8_192: 2_053, 16_384: 3_381, 32_768: 5_281,
    65_536: 8_065, 131_072: 11_911, 262_144: 16_834,
}  # fmt: skip


@dataclass(frozen=True)
class GradientMessage:
    """A gradient, sent when backward has left its layer."""

    layer: int
    """The head's is the model's depth, sent first; the embedding's and the scalars' -1, sent
    last."""
    bytes: float
    """Bytes that each rank sends."""


def expected_distinct_tokens(tokens: int, vocab_size: int) -> float:
    """Return how many distinct tokens to expect among `tokens` of text.

    Between the counted numbers and beyond them it is a power of the number (Heaps' law).
    """
    counts = sorted(DISTINCT_TOKENS.items())
    pairs = list(itertools.pairwise(counts))
    (n0, u0), (n1, u1) = next((pair for pair in pairs if tokens <= pair[1][0]), pairs[-1])
    exponent = math.log(u1 / u0) / math.log(n1 / n0)
    return min(u0 * (tokens / n0) ** exponent, tokens, vocab_size)


def messages(
    model: ModelConfig, rank_tokens: Sequence[int], table_dtype: str = "float32"
) -> list[GradientMessage]:
    """Return what each rank sends in a step, in the order of backward. `rank_tokens`: tokens of
    each rank."""
    ranks = len(rank_tokens)
    if ranks == 1:
        return []
    counts = parameter_counts(model)
    ring = 2 * (ranks - 1) / ranks
    rows = max(expected_distinct_tokens(tokens, model.vocab_size) for tokens in rank_tokens)
    table = (ranks - 1) * rows * model.dim * GRADIENT_BYTES[table_dtype]
    square = ring * 4 * model.dim**2
    sent = [GradientMessage(model.depth, ring * 4 * counts.lm_head)]
    for layer in reversed(range(model.depth)):
        sent += [GradientMessage(layer, 4 * square)] * 2 + [GradientMessage(layer, square)] * 4
        if model.has_value_embedding(layer):
            sent.append(GradientMessage(layer, table))
    return [*sent, GradientMessage(-1, table), GradientMessage(-1, ring * 4 * counts.scalars)]
