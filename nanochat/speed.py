"""How fast the parts of a model are on a device: each is the real one, timed forward and backward.

FLOPs are those of nanochat.sizes, so that FLOPs / rate is what a part takes there, with all that
goes with it: norms, activations, gates, softcap. With as many threads as torch has in the thread
that asks.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from nanochat.available_memory import available_bytes
from nanochat.hashed_file import write_hashed
from nanochat.loss import mean_head_loss
from nanochat.model import GPT, Block, attention
from nanochat.optimizer.adamw import GROUPS, AdamW
from nanochat.optimizer.muon import muon_update, variance_shape
from nanochat.sizes import (
    ADAMW_TRANSFERS,
    ModelConfig,
    attention_flops,
    block_product_flops,
    head_flops,
    muon_flops,
    orthogonalise_flops,
)

PASS_TOKENS = 2048  # of the pass in which parts are timed
# A figure is the median of the calls after a first one, which touches its memory: three, or as many
# as fill 0.3 s; no more once they have taken a second.
MIN_CALLS, MIN_SECONDS, MAX_SECONDS = 3, 0.3, 1.0
MAX_CALL_SECONDS = 6.0  # what would take longer for one call is left out
ARRAY_BYTES = 2**27  # more than the caches of a core hold
TABLE = (32_768, 256)  # of d4: 8.4M parameters


@dataclass(frozen=True)
class PartRates:
    """FLOP/s. `products`: of a block, all but the attention between tokens."""

    products: float
    attention: float
    head: float
    muon: float


class Bench:
    """Times calls on `device`; products are in `dtype`."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype

    def seconds(self, call: Callable[[], object]) -> float:
        """Of one call."""
        self._time(call)
        times: list[float] = []
        while len(times) < MIN_CALLS or sum(times) < MIN_SECONDS:
            times.append(self._time(call))
            if sum(times) >= MAX_SECONDS:
                break
        return statistics.median(times)

    def _time(self, call: Callable[[], object]) -> float:
        self._finish()
        started = time.perf_counter()
        call()
        self._finish()
        return time.perf_counter() - started

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    # --- FLOP/s of a model of the width, sequence length and vocabulary of `model`

    def part_rates(self, model: ModelConfig, tokens: int = PASS_TOKENS) -> PartRates:
        """Of passes of so many tokens, in whole rows."""
        tokens = whole_rows(model, tokens)
        update, update_flops = self._muon(model)
        products, attention = self._block_rates(model, tokens)
        return PartRates(
            products=products,
            attention=attention,
            head=tokens * head_flops(model) / self.seconds(self._head(model, tokens)),
            muon=update_flops / self.seconds(update),
        )

    def product_rate(self, model: ModelConfig, tokens: int = PASS_TOKENS) -> float:
        """`part_rates(...).products`, alone."""
        tokens = whole_rows(model, tokens)
        return self._block_rates(model, tokens)[0]

    def _block_rates(self, model: ModelConfig, tokens: int) -> tuple[float, float]:
        """Of the products and of the attention."""
        attention = self.seconds(self._attention(model, tokens))
        blocks = min(2, model.depth)
        products = self.seconds(self._two_blocks(model, tokens)) - blocks * attention
        per_layer = tokens / model.depth
        return (
            blocks * per_layer * block_product_flops(model) / products,
            per_layer * attention_flops(model) / attention,
        )

    def _two_blocks(self, model: ModelConfig, tokens: int) -> Callable[[], object]:
        """The last two, of which one has a value embedding, as every second layer of a model."""
        layers = range(model.depth)[-2:]
        blocks = [Block(model, layer).to(self.device) for layer in layers]
        length = model.sequence_length
        angles = torch.rand(1, length, 1, model.head_dim // 2, device=self.device)
        rotary = (angles.cos().to(self.dtype), angles.sin().to(self.dtype))
        shape = (tokens // length, length, model.dim)
        x, value_embedding = self._leaf(*shape), self._leaf(*shape)
        out = self._values(*shape)

        def call() -> None:
            y = x
            for layer, block in zip(layers, blocks, strict=True):
                with_value = model.has_value_embedding(layer)
                y = block(y, value_embedding if with_value else None, rotary, None)
            y.backward(out)
            _drop_gradients(x, value_embedding, *blocks)

        return call

    def _attention(self, model: ModelConfig, tokens: int) -> Callable[[], object]:
        length = model.sequence_length
        shape = (tokens // length, length, model.heads, model.head_dim)
        q, k, v = (self._leaf(*shape) for _ in range(3))
        out = self._values(*shape).transpose(1, 2)

        def call() -> None:
            y = attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), length)
            y.backward(out)
            _drop_gradients(q, k, v)

        return call

    def _head(self, model: ModelConfig, tokens: int) -> Callable[[], object]:
        x = self._leaf(tokens, model.dim)
        weight = self._leaf(model.padded_vocab_size, model.dim, dtype=torch.float32)
        targets = torch.randint(model.vocab_size, (tokens,), device=self.device)

        def call() -> None:
            mean_head_loss(x, weight, targets, tokens, model.vocab_size).backward()
            _drop_gradients(x, weight)

        return call

    def _muon(self, model: ModelConfig) -> tuple[Callable[[], object], int]:
        """The update of one block's matrices, and its FLOPs."""
        weights = [p.detach() for p in Block(model, model.depth - 1).to(self.device).parameters()]
        gradients = [torch.randn_like(weight) for weight in weights]
        momenta = [torch.zeros_like(weight) for weight in weights]
        variances = [weight.new_zeros(variance_shape(*weight.shape)) for weight in weights]

        def call() -> None:
            for tensors in zip(weights, gradients, momenta, variances, strict=True):
                muon_update(
                    *tensors, learning_rate=0.02, momentum=0.95, weight_decay=0.1,
                    low_precision=self.dtype == torch.bfloat16,
                )  # fmt: skip

        return call, sum(orthogonalise_flops(*weight.shape) for weight in weights)

    # --- tokens per second

    def pass_rates(self, model: ModelConfig, candidates: Iterable[int]) -> dict[int, float]:
        """Tokens per second of passes of so many tokens each, ascending, through a whole model
        whose gradients add up, as within a step. What is paid once a pass (each table's gradient is
        filled with zeros and added whole) costs a small pass more.

        Ends before one that would take MAX_CALL_SECONDS, or that memory does not do for.
        """
        gpt = GPT.empty(model, dtype=self.dtype, device=self.device)
        with torch.no_grad():
            for parameter in gpt.parameters():
                parameter.normal_(0.0, 0.02)
                parameter.grad = torch.zeros_like(parameter)
        found: dict[int, float] = {}
        before = available_bytes() or 0
        for tokens in candidates:
            left = available_bytes() or 0
            if found and tokens / max(found.values()) > MAX_CALL_SECONDS:
                break
            if left < 2 * (before - left):  # one of twice the tokens takes as much again
                break
            shape = (tokens // model.sequence_length, model.sequence_length)
            ids = torch.randint(model.vocab_size, shape, device=self.device)

            def one_pass(ids: Tensor = ids) -> None:
                gpt(ids, ids, denominator=ids.numel()).backward()

            try:
                found[tokens] = tokens / self.seconds(one_pass)
            except torch.OutOfMemoryError:
                break
        return found

    # --- bytes per second

    def memory_rate(self) -> float:
        """Of adding one large array to another: two are read, one is written."""
        one, other = (torch.zeros(ARRAY_BYTES // 4, device=self.device) for _ in range(2))
        return 3 * ARRAY_BYTES / self.seconds(lambda: one.add_(other))

    def adamw_rate(self) -> float:
        """Of the seven transfers per parameter of the update of a table."""
        table = nn.Parameter(self._values(*TABLE))
        gradient = self._values(*TABLE)
        optimizer = AdamW({"table": table}, GROUPS[1], peak_rate=0.01)

        def call() -> None:
            table.grad = gradient
            optimizer.step(1.0)

        return ADAMW_TRANSFERS * gradient.nbytes / self.seconds(call)

    # --- parts

    def _values(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(shape, device=self.device).to(dtype or self.dtype)

    def _leaf(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return self._values(*shape, dtype=dtype).requires_grad_()


def disk_rate(folder: Path) -> float:
    """Bytes per second of a file that is written as checkpoints are, hash and flush included.
    Raises OSError."""
    path = folder / "measured.tmp"
    content = torch.randint(256, (ARRAY_BYTES,), dtype=torch.uint8).numpy().data
    times: list[float] = []
    while len(times) < MIN_CALLS and sum(times) < MAX_SECONDS:
        started = time.perf_counter()
        try:
            write_hashed(path, [content])
        finally:
            path.unlink(missing_ok=True)
        times.append(time.perf_counter() - started)
    return ARRAY_BYTES / statistics.median(times)


def whole_rows(model: ModelConfig, tokens: int) -> int:
    """Tokens of as many rows as these make, at least one."""
    return max(1, tokens // model.sequence_length) * model.sequence_length


def longest_call_seconds(rates: PartRates, model: ModelConfig, tokens: int = PASS_TOKENS) -> float:
    """What the longest call of `part_rates(model)` takes at the rates of another width."""
    per_layer = tokens / model.depth
    products = per_layer * block_product_flops(model) / rates.products
    attention = per_layer * attention_flops(model) / rates.attention
    head = tokens * head_flops(model) / rates.head
    return max(2 * (products + attention), head, muon_flops(model) / model.depth / rates.muon)


def _drop_gradients(*parts: Tensor | nn.Module) -> None:
    for part in parts:
        for tensor in part.parameters() if isinstance(part, nn.Module) else [part]:
            tensor.grad = None
