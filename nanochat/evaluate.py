"""Bits per byte: how well a model predicts text, whatever its tokenizer (upstream's definition)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from nanochat.dataset import Rows
from nanochat.exchange import GradientExchange
from nanochat.model import GPT


def evaluate_bits_per_byte(
    model: GPT,
    rows: Rows,
    token_bytes: Tensor,
    *,
    max_tokens: int,
    micro_batch: int,
    rank: int,
    exchange: GradientExchange,
    sample_tokens: int | None = None,
) -> float:
    """Sum of nats / (ln 2 x sum of bytes) over the first rows, at most `max_tokens` tokens.

    token_bytes: (vocab,) bytes of each id, 0 for special ids, whose losses are left out. Rows are
    dealt out to ranks in turn; every rank returns the same figure. `sample_tokens`: run the model
    on the first so many tokens only and take their nats per token for those of all rows, which is
    right for an untrained model; the bytes are still counted in all rows.
    """
    length = model.config.sequence_length
    count = max(1, min(len(rows), max_tokens // length))
    sample = count if sample_tokens is None else max(1, min(count, sample_tokens // length))
    device = token_bytes.device
    nats, sampled, tokens, size = torch.zeros(4, dtype=torch.float64, device=device)
    for start in range(rank, count, micro_batch * exchange.world_size):
        numbers = np.arange(start, count, exchange.world_size)[:micro_batch]
        batch = torch.from_numpy(rows.batch(numbers)).to(device)
        counted = token_bytes[batch[:, 1:]]
        tokens += (counted > 0).sum()
        size += counted.sum()
        few = batch[: int((numbers < sample).sum())]
        if len(few):
            counts = counted[: len(few)] > 0
            nats += (model.nats(few[:, :-1], few[:, 1:]) * counts).sum(dtype=torch.float64)
            sampled += counts.sum()
    nats, sampled, tokens, size = exchange.sum(torch.stack((nats, sampled, tokens, size)))
    return float(nats * (tokens / sampled) / (math.log(2) * size))
