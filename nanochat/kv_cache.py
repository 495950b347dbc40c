"""Keys and values of the tokens that a model has already read, so that each is computed once."""

from __future__ import annotations

import torch
from torch import Tensor

from nanochat.sizes import ModelConfig


class KVCache:
    """Room for `capacity` tokens of one batch.

    `length` is the number of tokens stored. `last_embedding`, shape (batch, 1, dim), is what the
    smear of the next token mixes in. `keys` and `values`: (depth, batch, heads, capacity,
    head_dim).
    """

    def __init__(
        self,
        config: ModelConfig,
        capacity: int,
        *,
        batch: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (config.depth, batch, config.heads, capacity, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros_like(self.keys)
        self.capacity = capacity
        self.length = 0
        self.last_embedding: Tensor | None = None

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store new (batch, heads, tokens, head_dim) of a layer; return all it has so far.

        `length` moves on by `advance`, once every layer has stored its part.
        """
        end = self.length + keys.size(2)
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, tokens: int) -> None:
        self.length += tokens
