"""Bits per byte: how well a model predicts text, whatever its tokenizer (upstream's definition)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nanochat.batch_split import split_rows
from nanochat.dataset import RowDataset
from nanochat.exchange import GradientExchange
from nanochat.model import GPT


def evaluate_bits_per_byte(
    model: GPT,
    rows: RowDataset,
    token_bytes: Tensor,
    *,
    max_tokens: int,
    micro_batch: int,
    rank: int,
    weights: Sequence[float],
    exchange: GradientExchange,
    sample_tokens: int | None = None,
) -> float:
    """Sum of nats / (ln 2 x sum of bytes) over the first rows, at most `max_tokens` tokens.

    token_bytes: (vocab,) bytes of each id, 0 for special ids, whose losses are left out. Rows are
    split among ranks by their weights; every rank returns the same figure. `sample_tokens`: run
    the model on the first so many tokens only and take their nats per token for those of all rows,
    which is right for an untrained model; the bytes are still counted in all rows.
    """
    length = model.config.sequence_length
    count = evaluated_rows(len(rows), max_tokens, length)
    sample = count if sample_tokens is None else max(1, min(count, sample_tokens // length))
    device = token_bytes.device
    nats, sampled, tokens, size = torch.zeros(4, dtype=torch.float64, device=device)
    for first, last in ((0, sample), (sample, count)):
        share = split_rows(last - first, weights)[rank]
        for start in share[::micro_batch]:
            numbers = first + np.arange(start, min(start + micro_batch, share.stop))
            batch = torch.from_numpy(rows.batch(numbers)).to(device)
            counted = token_bytes[batch[:, 1:]]
            counts = counted > 0
            tokens += counts.sum()
            size += counted.sum()
            if first == 0:
                losses = model.nats(batch[:, :-1], batch[:, 1:])
                nats += (losses * counts).sum(dtype=torch.float64)
                sampled += counts.sum()
    nats, sampled, tokens, size = exchange.sum(torch.stack((nats, sampled, tokens, size)))
    return float(nats * (tokens / sampled) / (math.log(2) * size))


def evaluated_rows(stored: int, max_tokens: int, sequence_length: int) -> int:
    """How many of the first `stored` rows are measured."""
    return max(1, min(stored, max_tokens // sequence_length))
