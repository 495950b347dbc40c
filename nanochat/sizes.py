"""How large a nanochat model is, for any depth, without building one. Imports no torch.

One dial, `depth`, sets the rest: the width is 64 x depth, rounded up to whole heads. Sources:
karpathy/nanochat `gpt.py` (architecture, FLOPs formula) and PaLM, arXiv 2204.02311 appendix B.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

VOCAB_SIZE = 32_768
VOCAB_MULTIPLE = 64  # the tables are padded to a multiple of this
WIDTH_PER_LAYER = 64
VALUE_GATE_CHANNELS = 12  # a value embedding's gate reads this many channels of its layer's input
SMEAR_CHANNELS = 24  # the smear gate reads this many channels of the embedding
# Of AdamW's update: weight and both moments are read and written, the gradient is read.
ADAMW_TRANSFERS = 7
WINDOW_MULTIPLE = 128  # short windows are rounded up to this many tokens


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of one model. `sequence_length` and windows are in tokens."""

    depth: int
    head_dim: int = 128
    sequence_length: int = 2048
    window_pattern: str = "L"
    vocab_size: int = VOCAB_SIZE

    @property
    def dim(self) -> int:
        return math.ceil(self.depth * WIDTH_PER_LAYER / self.head_dim) * self.head_dim

    @property
    def heads(self) -> int:
        return self.dim // self.head_dim

    @property
    def padded_vocab_size(self) -> int:
        return math.ceil(self.vocab_size / VOCAB_MULTIPLE) * VOCAB_MULTIPLE

    @property
    def windows(self) -> list[int]:
        """Tokens that each layer may look back: the pattern tiled over the layers, the last L."""
        short = math.ceil(self.sequence_length / 4 / WINDOW_MULTIPLE) * WINDOW_MULTIPLE
        window = {"L": self.sequence_length, "S": short}
        pattern = self.window_pattern
        windows = [window[pattern[layer % len(pattern)]] for layer in range(self.depth)]
        windows[-1] = self.sequence_length
        return windows

    def has_value_embedding(self, layer: int) -> bool:
        """Every second layer has one, the last included."""
        return layer % 2 == (self.depth - 1) % 2


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters by group, in upstream's grouping."""

    wte: int
    value_embeds: int
    lm_head: int
    matrices: int
    scalars: int

    @property
    def total(self) -> int:
        return self.wte + self.value_embeds + self.lm_head + self.matrices + self.scalars

    @property
    def scaling(self) -> int:
        """Matrices + head: the count that gave upstream its cleanest scaling laws."""
        return self.matrices + self.lm_head


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter, as in the model's state dict and upstream's."""
    dim, vocab = config.dim, config.padded_vocab_size
    shapes: dict[str, tuple[int, ...]] = {
        "resid_lambdas": (config.depth,),
        "x0_lambdas": (config.depth,),
        "smear_lambda": (1,),
        "backout_lambda": (1,),
        "transformer.wte.weight": (vocab, dim),
    }
    for layer in range(config.depth):
        block = f"transformer.h.{layer}"
        for name in ("c_q", "c_k", "c_v", "c_proj"):
            shapes[f"{block}.attn.{name}.weight"] = (dim, dim)
        if config.has_value_embedding(layer):
            shapes[f"{block}.attn.ve_gate.weight"] = (config.heads, VALUE_GATE_CHANNELS)
            shapes[f"value_embeds.{layer}.weight"] = (vocab, dim)
        shapes[f"{block}.mlp.c_fc.weight"] = (4 * dim, dim)
        shapes[f"{block}.mlp.c_proj.weight"] = (dim, 4 * dim)
    shapes["lm_head.weight"] = (vocab, dim)
    shapes["smear_gate.weight"] = (1, SMEAR_CHANNELS)
    return shapes


def parameter_counts(config: ModelConfig) -> ParameterCounts:
    groups = dict.fromkeys(ParameterCounts.__dataclass_fields__, 0)
    for name, shape in parameter_shapes(config).items():
        groups[_group(name)] += math.prod(shape)
    return ParameterCounts(**groups)


def flops_per_token(config: ModelConfig) -> int:
    """Training FLOPs (forward and backward) per token, by upstream's formula.

    6 per parameter of a matrix product (2 forward, 4 backward; lookup tables multiply nothing)
    and 12 x dim x window per layer for attention. Causality is not deducted.
    """
    return block_product_flops(config) + attention_flops(config) + head_flops(config)


def block_product_flops(config: ModelConfig) -> int:
    """Of them those of the matrices of all blocks, with the smear gate."""
    return 6 * (parameter_counts(config).matrices + SMEAR_CHANNELS)


def attention_flops(config: ModelConfig) -> int:
    """Of them those between tokens, in all blocks."""
    windows = (min(window, config.sequence_length) for window in config.windows)
    return sum(12 * config.dim * window for window in windows)


def head_flops(config: ModelConfig) -> int:
    """Of them those of the head."""
    return 6 * parameter_counts(config).lm_head


def muon_flops(config: ModelConfig) -> int:
    """FLOPs of the products that Muon takes in one update of all its matrices."""
    return sum(
        orthogonalise_flops(*shape)
        for name, shape in parameter_shapes(config).items()
        if _group(name) == "matrices"
    )


def orthogonalise_flops(rows: int, columns: int) -> int:
    """See nanochat.optimizer.muon.orthogonalise: five steps of three products."""
    small, large = sorted((rows, columns))
    return 5 * (4 * small**2 * large + 2 * small**3)


@dataclass(frozen=True)
class StateBytes:
    """What one rank holds between steps."""

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer


def state_parts(config: ModelConfig, *, bf16_tables: bool = False) -> StateBytes:
    """AdamW keeps two moments per parameter, Muon one and a factored second (counted exactly).

    `bf16_tables`: token and value embeddings, their gradients and moments in bfloat16, as on
    GPUs; everything else is float32.
    """
    weights = optimizer = 0
    for name, shape in parameter_shapes(config).items():
        group = _group(name)
        width = 2 if bf16_tables and group in ("wte", "value_embeds") else 4
        size = math.prod(shape)
        weights += width * size
        optimizer += width * (size + max(shape) if group == "matrices" else 2 * size)
    return StateBytes(weights, weights, optimizer)


def state_bytes(config: ModelConfig, *, bf16_tables: bool = False) -> int:
    """Bytes of weights, gradients and optimizer state that one rank holds between steps."""
    return state_parts(config, bf16_tables=bf16_tables).total


def checkpoint_bytes(config: ModelConfig) -> int:
    """Of weights and optimizer state in float32: all but the gradients."""
    return state_bytes(config) - 4 * parameter_counts(config).total


def _group(name: str) -> str:
    if name == "transformer.wte.weight":
        return "wte"
    if name.startswith("value_embeds."):
        return "value_embeds"
    if name == "lm_head.weight":
        return "lm_head"
    return "matrices" if name.startswith("transformer.h.") else "scalars"
