"""A small model whose every weight is fixed, and rows for it: upstream's own code has run on them,
and what came out is kept in golden/upstream.json (tests/bench/equality.py writes it)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from nanochat.model import GPT
from nanochat.sizes import ModelConfig

CONFIG = ModelConfig(
    depth=4, head_dim=32, sequence_length=256, vocab_size=265, window_pattern="SL"
)  # fmt: skip
PROMPT = [256, *b"import "]  # <|bos|> and the bytes
ROWS, TOKENS = 2, 257
TEXT_TOKENS = 64


def uniform(count: int, *key: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """In [-1, 1): numpy keeps these raw streams stable between versions (NEP 19)."""
    raw = np.random.Philox(np.random.SeedSequence(key)).random_raw(count)
    return (raw >> np.uint64(11)).astype(np.float64) / 2**52 - 1


def model() -> GPT:
    """With noise on every weight: a fresh model's zeros switch most of it off."""
    made = GPT.build(CONFIG, seed=0)
    with torch.no_grad():
        for number, (_, parameter) in enumerate(sorted(made.named_parameters())):
            spread = 0.5 if parameter.ndim < 2 else 2.5 * parameter.size(-1) ** -0.5
            noise = uniform(parameter.numel(), 1, number).reshape(parameter.shape)
            start = 1.0 if parameter.ndim < 2 else 0.0
            parameter.copy_(start + spread * torch.from_numpy(noise))
    return made


def rows() -> Tensor:
    """(ROWS, TOKENS) ids."""
    numbers = (uniform(ROWS * TOKENS, 2) + 1) / 2 * CONFIG.vocab_size
    return torch.from_numpy(numbers.astype(np.int64).reshape(ROWS, TOKENS))


def traces(gradients: dict[str, Tensor]) -> dict[str, list[float]]:
    """Of each gradient its norm, and what it is along a fixed direction."""
    found = {}
    for number, (name, gradient) in enumerate(sorted(gradients.items())):
        flat = gradient.detach().double().flatten()
        direction = torch.from_numpy(uniform(flat.numel(), 3, number))
        along = float(flat @ direction / direction.norm())
        found[name] = [float(flat.norm()), along]
    return found
