"""Upstream's rules for a size: how long to train, with which batch, at which rates.

Found there by experiment on some sizes and carried over to all. Imports no torch.
"""

from __future__ import annotations

import math
from dataclasses import replace

from nanochat.sizes import ModelConfig, flops_per_token, parameter_counts

TOKENS_PER_SCALING_PARAMETER = 12.0  # about the compute optimum
# The batch and the model that upstream tuned its rates on.
REFERENCE_TOKENS_PER_STEP = 2**19
REFERENCE_DEPTH = 12
REFERENCE_WEIGHT_DECAY = 0.28
BATCH_EXPONENT = 0.383  # the best batch grows with tokens to this power (arXiv 2505.13738)


def size_ratio(config: ModelConfig) -> float:
    """Scaling parameters, and so optimal tokens, relative to the model that rates were tuned on."""
    reference = replace(config, depth=REFERENCE_DEPTH)
    return parameter_counts(config).scaling / parameter_counts(reference).scaling


def optimal_tokens_per_step(config: ModelConfig) -> int:
    """The power of two nearest to 2^19 r^0.383, r the size ratio, in whole rows (at least one)."""
    exact = REFERENCE_TOKENS_PER_STEP * size_ratio(config) ** BATCH_EXPONENT
    rows = 2 ** round(math.log2(exact)) / config.sequence_length
    return max(1, round(rows)) * config.sequence_length


def steps_for_tokens(tokens: float, tokens_per_step: int) -> int:
    """Whole steps, rounded down."""
    return int(tokens // tokens_per_step)


def steps_for_flops(flops: float, config: ModelConfig, tokens_per_step: int) -> int:
    """Steps whose cost is nearest to a budget of training FLOPs."""
    return round(flops / (flops_per_token(config) * tokens_per_step))


def learning_rate_scale(tokens_per_step: int) -> float:
    """Rates grow with the square root of the batch (AdamW theory; for Muon an assumption)."""
    return math.sqrt(tokens_per_step / REFERENCE_TOKENS_PER_STEP)


def muon_weight_decay(config: ModelConfig, tokens_per_step: int) -> float:
    """Weight decay that keeps the time scale B / (lr wd D) constant, arXiv 2405.13698.

    D, the compute-optimal tokens, is proportional to the scaling parameters.
    """
    return REFERENCE_WEIGHT_DECAY * learning_rate_scale(tokens_per_step) / size_ratio(config)
