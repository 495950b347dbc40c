"""The most memory that one rank takes, before it is taken: every part of it by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from launcher.guide.wire import different_tokens
from nanochat.shares import CHUNK_TOKENS
from nanochat.sizes import ModelConfig, parameter_counts, state_bytes

# What backward keeps of each token, in arrays of the model's width, per layer: the block's input,
# its norm, queries and keys before and after their norm, values, attention's output, the sum after
# it, its norm, twice the four-fold hidden layer, and what a residual scale multiplies.
KEPT_WIDTHS = 20
VALUE_WIDTHS = 1  # of a layer with a value embedding
PASSING_WIDTHS = 12  # of the layer that backward is in: gradients of the hidden layer
# Arrays of a chunk's logits that live at once: float32 on a CPU, with a copy in bfloat16 on a GPU.
HEAD_BYTES = {"cpu": 8, "cuda": 12}
# Before there is a model: Python, torch, Ray's worker. Where it was measured, that counts.
PROCESS_BYTES = {"cpu": 600_000_000, "cuda": 500_000_000}


@dataclass(frozen=True)
class PeakMemory:
    """Bytes of one rank. `state`: weights, gradients, optimizer. `copy`: of weights and optimizer
    state, from which checkpoints are written on the way; on a GPU's host, not on the GPU."""

    process: int
    state: int
    activations: int
    head: int
    exchange: int
    copy: int

    @property
    def total(self) -> int:
        return self.process + self.state + self.activations + self.head + self.exchange + self.copy


def peak_memory(
    model: ModelConfig,
    micro_batch: int,
    *,
    device: str,
    dtype: str = "float32",
    rank_tokens: Sequence[int] = (0,),
    keeps_copy: bool = True,
    process_bytes: int | None = None,
) -> PeakMemory:
    """`micro_batch`: rows of one pass; `rank_tokens`: of each rank's step. `device`: cpu, or cuda,
    whose own memory is meant then. `keeps_copy`: whether there are checkpoints on the way."""
    rows = different_tokens(max(rank_tokens), model.vocab_size) if len(rank_tokens) > 1 else 0
    tokens, wide = micro_batch * model.sequence_length, 2 if dtype == "bfloat16" else 4
    values = sum(model.has_value_embedding(layer) for layer in range(model.depth))
    widths = KEPT_WIDTHS * model.depth + VALUE_WIDTHS * values + PASSING_WIDTHS
    counts = parameter_counts(model)
    state = state_bytes(model, bf16_tables=dtype == "bfloat16")
    tables = (counts.wte + counts.value_embeds) * wide
    chunk = min(tokens, CHUNK_TOKENS[device])
    gradients = 4 * (counts.lm_head + counts.matrices + counts.scalars) + tables
    return PeakMemory(
        process=PROCESS_BYTES[device] if process_bytes is None else process_bytes,
        state=state,
        activations=tokens * model.dim * wide * widths,
        head=chunk * model.padded_vocab_size * HEAD_BYTES[device],
        # Of each table the rows that this rank sends and those that it gets of every rank.
        exchange=round(rows * model.dim * wide * (len(rank_tokens) + 1) * (values + 1)),
        copy=state - gradients if keeps_copy and device == "cpu" else 0,
    )
