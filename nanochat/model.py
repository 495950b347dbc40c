"""The nanochat transformer, as upstream has it today (karpathy/nanochat `gpt.py`, July 2026).

Rotary positions, QK norm, weightless RMSNorm, relu^2, an untied head with softcapped logits,
value embeddings with gates on every second layer, learned residual scales, smear and backout.
Parameter names and shapes are upstream's, so weights travel both ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.kv_cache import KVCache
from nanochat.loss import LOGIT_SOFTCAP, head_nats, mean_head_loss
from nanochat.sizes import SMEAR_CHANNELS, VALUE_GATE_CHANNELS, ModelConfig, parameter_shapes

ROTARY_BASE = 100_000
# Positions are known for this many times the training length: text may be generated beyond it.
ROTARY_REACH = 10
QK_SCALE = 1.2  # on queries and on keys: sharper attention after their norm


def norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),))


class Linear(nn.Linear):
    """No bias; the float32 master weight is cast to its input's dtype, in place of autocast."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(dtype=x.dtype))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the two halves of (batch, tokens, heads, head_dim) by minus theta, as upstream does.

    Only the difference of two positions matters, so the sign is a convention; weights need it.
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos + second * sin, second * cos - first * sin), dim=-1)


def attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Causal attention of the last q.size(2) positions over k.size(2) positions.

    All (batch, heads, tokens, head_dim). A position sees itself and `window` tokens before it.
    """
    queries, keys = q.size(2), k.size(2)
    if queries == 1:
        start = max(0, keys - window - 1)
        return F.scaled_dot_product_attention(q, k[:, :, start:], v[:, :, start:])
    if queries == keys and window >= queries:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    row = torch.arange(keys - queries, keys, device=q.device).unsqueeze(1)
    column = torch.arange(keys, device=q.device)
    visible = (column <= row) & (row - column <= window)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.window = config.windows[layer]
        self.head_dim = config.head_dim
        self.c_q = Linear(config.dim, config.dim)
        self.c_k = Linear(config.dim, config.dim)
        self.c_v = Linear(config.dim, config.dim)
        self.c_proj = Linear(config.dim, config.dim)
        self.ve_gate = (
            Linear(VALUE_GATE_CHANNELS, config.heads) if config.has_value_embedding(layer) else None
        )

    def forward(
        self, x: Tensor, value_embedding: Tensor | None, rotary: tuple[Tensor, Tensor],
        cache: KVCache | None,
    ) -> Tensor:  # fmt: skip
        batch, tokens, dim = x.shape
        heads = (batch, tokens, -1, self.head_dim)
        q, k, v = self.c_q(x).view(heads), self.c_k(x).view(heads), self.c_v(x).view(heads)
        if self.ve_gate is not None and value_embedding is not None:
            gate = 3 * torch.sigmoid(self.ve_gate(x[..., :VALUE_GATE_CHANNELS]))
            v = v + gate.unsqueeze(-1) * value_embedding.view(heads)
        q = norm(rotate(q, *rotary)) * QK_SCALE
        k = norm(rotate(k, *rotary)) * QK_SCALE
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)
        y = attention(q, k, v, self.window)
        return self.c_proj(y.transpose(1, 2).reshape(batch, tokens, dim))


def _table(config: ModelConfig, dtype: torch.dtype) -> nn.Embedding:
    """A vector for every id, without values. nn.Embedding's own way to build one would draw them,
    which on the meta device imports torch's compiler (1 to 5 s)."""
    empty = torch.empty(config.padded_vocab_size, config.dim, dtype=dtype)
    return nn.Embedding.from_pretrained(empty, freeze=False)


class MLP(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = Linear(config.dim, 4 * config.dim)
        self.c_proj = Linear(4 * config.dim, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.relu(self.c_fc(x)).square())


class Block(nn.Module):
    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attn = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, value_embedding: Tensor | None, rotary: tuple[Tensor, Tensor],
        cache: KVCache | None,
    ) -> Tensor:  # fmt: skip
        x = x + self.attn(norm(x), value_embedding, rotary, cache)
        return x + self.mlp(norm(x))


class GPT(nn.Module):
    """Parameters without values: use `build` (fresh) or load a state dict into one from `empty`."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.config = config
        self.dtype = dtype  # of activations and tables; matrices, head and scalars are float32
        depth = config.depth
        self.transformer = nn.ModuleDict(
            {
                "wte": _table(config, dtype),
                "h": nn.ModuleList([Block(config, layer) for layer in range(depth)]),
            }
        )
        self.lm_head = Linear(config.dim, config.padded_vocab_size)
        self.resid_lambdas = nn.Parameter(torch.empty(depth))
        self.x0_lambdas = nn.Parameter(torch.empty(depth))
        self.smear_gate = Linear(SMEAR_CHANNELS, 1)
        self.smear_lambda = nn.Parameter(torch.empty(1))
        self.backout_lambda = nn.Parameter(torch.empty(1))
        self.value_embeds = nn.ModuleDict(
            {
                str(layer): _table(config, dtype)
                for layer in range(depth)
                if config.has_value_embedding(layer)
            }
        )
        self.register_buffer("cos", None, persistent=False)
        self.register_buffer("sin", None, persistent=False)

    @classmethod
    def empty(
        cls,
        config: ModelConfig,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> GPT:
        """A model with memory for its parameters and no values in them."""
        with torch.device("meta"):
            model = cls(config, dtype)
        model.to_empty(device=device)
        model._set_rotary(torch.device(device))
        return model

    @classmethod
    def build(
        cls,
        config: ModelConfig,
        *,
        seed: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> GPT:
        """A fresh model. The same seed gives the same weights on every device and rank (on a CPU
        without AVX2 some differ in their last bit).

        Draws are made on the CPU in upstream's order: seed 42 is upstream's own start there.
        """
        model = cls.empty(config, dtype=dtype, device=device)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, values in initial_values(config, generator):
                model.get_parameter(name).copy_(values)
        return model

    def _set_rotary(self, device: torch.device) -> None:
        """cos and sin, each (1, positions, 1, head_dim / 2)."""
        channels = torch.arange(0, self.config.head_dim, 2, dtype=torch.float32)
        frequencies = 1.0 / (ROTARY_BASE ** (channels / self.config.head_dim))
        positions = torch.arange(ROTARY_REACH * self.config.sequence_length, dtype=torch.float32)
        angles = torch.outer(positions, frequencies)[None, :, None, :]
        self.cos = angles.cos().to(device=device, dtype=self.dtype)
        self.sin = angles.sin().to(device=device, dtype=self.dtype)

    @property
    def positions(self) -> int:
        """The longest text, in tokens, that the model has positions for."""
        return ROTARY_REACH * self.config.sequence_length

    def lookup_tables(self) -> Iterator[nn.Parameter]:
        """(vocab, dim) each: only the rows of a batch's tokens get a gradient."""
        for name, parameter in self.named_parameters():
            if name.startswith(("transformer.wte.", "value_embeds.")):
                yield parameter

    def hidden(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """(batch, tokens) ids -> (batch, tokens, dim), normed: what the head reads."""
        start = 0 if cache is None else cache.length
        stop = start + tokens.size(1)
        rotary = (self.cos[:, start:stop], self.sin[:, start:stop])
        x = norm(self.transformer["wte"](tokens))
        x = x0 = self._smear(x, cache)
        middle = x
        for layer, block in enumerate(cast(nn.ModuleList, self.transformer["h"])):
            x = self.resid_lambdas[layer] * x + self.x0_lambdas[layer] * x0
            value_embedding = (
                self.value_embeds[str(layer)](tokens)
                if self.config.has_value_embedding(layer)
                else None
            )
            x = block(x, value_embedding, rotary, cache)
            if layer == self.config.depth // 2:
                middle = x
        if cache is not None:
            cache.advance(tokens.size(1))
        return norm(x - self.backout_lambda.to(x.dtype) * middle)

    def _smear(self, x: Tensor, cache: KVCache | None) -> Tensor:
        """Mix the embedding of the token before into each token: a cheap bigram."""
        before = None if cache is None else cache.last_embedding
        if cache is not None:
            cache.last_embedding = x[:, -1:]
        if before is None:
            first, rest, previous = x[:, :1], x[:, 1:], x[:, :-1]
        else:
            first, rest, previous = x[:, :0], x, torch.cat((before, x[:, :-1]), dim=1)
        gate = self.smear_lambda.to(x.dtype) * torch.sigmoid(
            self.smear_gate(rest[..., :SMEAR_CHANNELS])
        )
        return torch.cat((first, rest + gate * previous), dim=1)

    def forward(self, tokens: Tensor, targets: Tensor, *, denominator: int) -> Tensor:
        """Sum of the tokens' losses in nats over `denominator`: a scalar to run backward from.

        tokens and targets (batch, tokens). With the tokens of the whole step as denominator, the
        gradients of all micro-batches and ranks just add up.
        """
        x = self.hidden(tokens).flatten(0, 1)
        return mean_head_loss(
            x, self.lm_head.weight, targets.flatten(), denominator, self.config.vocab_size
        )

    @torch.no_grad()
    def nats(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Loss of each token in nats, (batch, tokens), float32."""
        x = self.hidden(tokens).flatten(0, 1)
        nats = head_nats(x, self.lm_head.weight, targets.flatten(), self.config.vocab_size)
        return nats.view(targets.shape)

    @torch.no_grad()
    def logits(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Softcapped logits of the token after the last one: (batch, vocab_size), float32."""
        x = self.hidden(tokens, cache)[:, -1]
        z = self.lm_head(x)[:, : self.config.vocab_size].float()
        return LOGIT_SOFTCAP * torch.tanh(z / LOGIT_SOFTCAP)


def initial_values(config: ModelConfig, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """(name, float32 values) of every parameter of a fresh model, in upstream's order of draws."""
    shapes = parameter_shapes(config)

    def normal(name: str, std: float) -> tuple[str, Tensor]:
        return name, torch.empty(shapes[name]).normal_(0.0, std, generator=generator)

    def uniform(name: str, low: float, high: float) -> tuple[str, Tensor]:
        return name, torch.empty(shapes[name]).uniform_(low, high, generator=generator)

    def zeros(name: str) -> tuple[str, Tensor]:
        return name, torch.zeros(shapes[name])

    # Uniform with the standard deviation of a normal of 1 / sqrt(dim), but no outliers.
    bound = (3 / config.dim) ** 0.5
    layers = range(config.depth)
    yield normal("transformer.wte.weight", 0.8)
    yield normal("lm_head.weight", 0.001)
    for layer in layers:
        block = f"transformer.h.{layer}"
        yield uniform(f"{block}.attn.c_q.weight", -bound, bound)
        yield uniform(f"{block}.attn.c_k.weight", -bound, bound)
        yield uniform(f"{block}.attn.c_v.weight", -bound, bound)
        yield zeros(f"{block}.attn.c_proj.weight")
        yield uniform(f"{block}.mlp.c_fc.weight", -0.4 * bound, 0.4 * bound)
        yield zeros(f"{block}.mlp.c_proj.weight")
    last = max(config.depth - 1, 1)
    yield "resid_lambdas", torch.tensor([1.15 - 0.10 * layer / last for layer in layers])
    yield "x0_lambdas", torch.tensor([0.20 - 0.15 * layer / last for layer in layers])
    yield zeros("smear_lambda")
    yield "backout_lambda", torch.tensor([0.2])
    yield uniform("smear_gate.weight", 0.0, 0.02)
    with_tables = [layer for layer in layers if config.has_value_embedding(layer)]
    for layer in with_tables:
        yield uniform(f"value_embeds.{layer}.weight", -bound, bound)
    for layer in with_tables:
        yield uniform(f"transformer.h.{layer}.attn.ve_gate.weight", 0.0, 0.02)
