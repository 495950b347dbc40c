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
) -> float:
    """Sum of nats / (ln 2 x sum of bytes) over the first rows, at most `max_tokens` tokens.

    token_bytes: (vocab,) bytes of each id, 0 for special ids, whose losses are left out. Rows are
    dealt out to ranks in turn; every rank returns the same figure.
    """
    sequence_length = model.config.sequence_length
    count = max(1, min(len(rows), max_tokens // sequence_length))
    mine = np.arange(rank, count, exchange.world_size)
    device = token_bytes.device
    nats, size = torch.zeros(2, dtype=torch.float64, device=device)
    for start in range(0, len(mine), micro_batch):
        batch = torch.from_numpy(rows.batch(mine[start : start + micro_batch])).to(device)
        inputs, targets = batch[:, :-1], batch[:, 1:]
        counted = token_bytes[targets]
        nats += (model.nats(inputs, targets) * (counted > 0)).sum(dtype=torch.float64)
        size += counted.sum()
    nats, size = exchange.sum(torch.stack((nats, size)))
    return float(nats / (math.log(2) * size))
