"""The most memory that one rank takes, before it is taken: every part of it by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from launcher.planner.gradient_traffic import expected_distinct_tokens
from nanochat.batch_split import CHUNK_TOKENS
from nanochat.sizes import ModelConfig, parameter_counts, state_bytes

# What backward keeps of each token, in arrays of the model's width, per layer: the block's input,
# its norm, queries and keys before and after their norm, values, attention's output, the sum after
# it, its norm, twice the four-fold hidden layer, and what a residual scale multiplies.
KEPT_WIDTHS = 20
VALUE_WIDTHS = 1  # of a layer with a value embedding
PASSING_WIDTHS = 12  # of the layer that backward is in: gradients of the hidden layer
# Arrays of a chunk's logits that live at once: three in float32 on a CPU; on a GPU two of them,
# with a copy in bfloat16.
HEAD_BYTES = {"cpu": 12, "cuda": 12}
# Before there is a model: Python, torch, Ray's worker. Where it was measured, that counts.
PROCESS_BYTES = {"cpu": 410_000_000, "cuda": 500_000_000}
# A heap that keeps what is freed (nanochat.memory) has holes: as a part of what a step takes and
# gives back. Of d4, d8 and d12, in one pass and several, 0.39 to 0.65 (tests, test_memory.py).
# A GPU's allocator has next to none. And buffers of the libraries that compute.
HOLES = {"cpu": 0.5, "cuda": 0.0}
LIBRARY_BYTES = {"cpu": 100_000_000, "cuda": 0}


@dataclass(frozen=True)
class PeakMemory:
    """Bytes of one rank. `state`: weights and optimizer; `gradients`: as far as there are any when
    the head's are computed; `holes`: between what a step takes; `copy`: of the state, from which
    checkpoints are written on the way; on a GPU's host, not on the GPU."""

    process: int
    state: int
    gradients: int
    activations: int
    head: int
    exchange: int
    holes: int
    copy: int

    @property
    def total(self) -> int:
        return sum(vars(self).values())


def peak_memory(
    model: ModelConfig,
    micro_batch: int,
    *,
    device: str,
    dtype: str = "float32",
    passes: int,
    rank_tokens: Sequence[int] = (0,),
    keeps_copy: bool = True,
    process_bytes: int | None = None,
) -> PeakMemory:
    """`micro_batch`: rows of one of its `passes`; `rank_tokens`: of each rank's step. `device`:
    cpu, or cuda, whose own memory is meant then. `keeps_copy`: whether there are checkpoints on the
    way.

    The peak is where the last pass computes the head: of several, the others' gradients are there.
    """
    rows = (
        expected_distinct_tokens(max(rank_tokens), model.vocab_size) if len(rank_tokens) > 1 else 0
    )
    tokens, value_bytes = micro_batch * model.sequence_length, 2 if dtype == "bfloat16" else 4
    values = sum(model.has_value_embedding(layer) for layer in range(model.depth))
    widths = KEPT_WIDTHS * model.depth + VALUE_WIDTHS * values + PASSING_WIDTHS
    counts = parameter_counts(model)
    tables = (counts.wte + counts.value_embeds) * value_bytes
    all_gradients = 4 * (counts.lm_head + counts.matrices + counts.scalars) + tables
    state = state_bytes(model, bf16_tables=dtype == "bfloat16") - all_gradients
    chunk = min(tokens, CHUNK_TOKENS[device])
    head = chunk * model.padded_vocab_size * HEAD_BYTES[device] + 4 * counts.lm_head
    activations = tokens * model.dim * value_bytes * widths
    # Of a single pass they come as activations go.
    gradients = all_gradients if passes > 1 else max(0, all_gradients - activations - head)
    # Of each table the rows that this rank sends and those that it gets of every rank.
    exchange = round(rows * model.dim * value_bytes * (len(rank_tokens) + 1) * (values + 1))
    step = gradients + activations + head + exchange
    return PeakMemory(
        process=PROCESS_BYTES[device] if process_bytes is None else process_bytes,
        state=state,
        gradients=gradients,
        activations=activations,
        head=head,
        exchange=exchange,
        holes=round(HOLES[device] * step) + LIBRARY_BYTES[device],
        copy=state if keeps_copy and device == "cpu" else 0,
    )
