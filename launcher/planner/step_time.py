"""What one optimizer step takes, before it is made: every part of it by name.

    t_step = max over ranks (tokens x FLOPs / rate) + optimizer + wire bytes / link - overlap
             + memory traffic

FLOPs by part of the model (nanochat.sizes), rates as measured for that part at its width
(launcher.planner.measurement) or estimated, bytes as nanochat.exchange sends them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from launcher.planner.gradient_traffic import GRADIENT_BYTES, GradientMessage, messages
from launcher.planner.measurement import HostSpeed, LinkSpeed, WidthRates
from nanochat.sizes import (
    ADAMW_TRANSFERS,
    ModelConfig,
    attention_flops,
    block_product_flops,
    head_flops,
    muon_flops,
    parameter_counts,
)

BACKWARD = 2 / 3  # of the FLOPs of a pass; the head's is done with its forward
ADDED_TRANSFERS = 3  # one array added to another


@dataclass(frozen=True)
class Term:
    """One part of a step."""

    name: str
    seconds: float
    """Negative if it overlaps with other parts."""
    detail: str
    """How the seconds come about, for people."""

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "seconds": self.seconds, "words": self.detail}


@dataclass(frozen=True)
class RankLoad:
    """One rank's part of a step. `micro_batch`: rows of one pass."""

    host: str
    rows: int
    micro_batch: int

    @property
    def passes(self) -> int:
        return math.ceil(self.rows / self.micro_batch)


@dataclass(frozen=True)
class StepTime:
    """A predicted step. `slowest`: the host that the others wait for; `busy_seconds`: for how long
    each host computes, optimizer included; `wire_bytes` that each rank sends."""

    terms: tuple[Term, ...]
    tokens: int
    slowest: str
    busy_seconds: Mapping[str, float]
    wire_bytes: int

    @property
    def seconds(self) -> float:
        return sum(term.seconds for term in self.terms)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    def term(self, name: str) -> float:
        return next((term.seconds for term in self.terms if term.name == name), 0.0)

    @property
    def exposed_seconds(self) -> float:
        """Of the exchange: what a step takes longer for it."""
        return self.term("exchange") + self.term("wire") + self.term("overlap")

    @property
    def parts(self) -> dict[str, float]:
        """Seconds of what is not beside each other. Kernels: what a GPU waits for its CPU."""
        optimizer = self.term("muon") + self.term("adamw")
        kernels, network = self.term("kernels"), self.exposed_seconds
        compute = self.seconds - optimizer - kernels - network
        return {
            "compute": compute,
            "starting kernels": kernels,
            "optimizer": optimizer,
            "network": network,
        }


def step_time(
    model: ModelConfig,
    ranks: Sequence[RankLoad],
    speeds: Mapping[str, HostSpeed],
    link: LinkSpeed | None,
    *,
    table_dtype: str = "float32",
    correction: float = 1.0,
) -> StepTime:
    """`link`: the slowest between two of the ranks; None where there is one rank. `correction`: of
    what computes, from a real training."""
    parts = {
        load.host: _rank_terms(model, load, speeds[load.host], table_dtype, correction)
        for load in sorted(ranks, key=lambda load: load.rows)  # of a host's ranks the slowest
    }
    # Ranks meet once a step, when gradients are summed: a rank that is done with its update before
    # the others begins its next pass.
    busy = {host: sum(term.seconds for term in terms) for host, terms in parts.items()}
    slowest = max(busy, key=lambda host: busy[host])
    terms = list(parts[slowest])
    tokens = [load.rows * model.sequence_length for load in ranks]
    sent = messages(model, tokens, table_dtype)
    if sent and link is not None:
        load = next(load for load in ranks if load.host == slowest)
        last_pass = load.micro_batch * model.sequence_length
        blocks, attention, _ = _product_seconds(model, speeds[slowest], last_pass)
        together = (blocks + attention) * speeds[slowest].pass_correction * correction
        layer = BACKWARD * together / model.depth
        terms += _exchange_terms(model, sent, link, len(ranks), layer)
    wire_bytes = round(sum(message.bytes for message in sent))
    return StepTime(tuple(terms), sum(tokens), slowest, busy, wire_bytes)


def rates_at(speed: HostSpeed, width: int) -> WidthRates:
    """Of a width between two that were measured by the logarithm; beyond them the nearest's."""
    known = sorted(speed.widths)
    if width <= known[0]:
        return speed.widths[known[0]]
    for low, high in pairwise(known):
        if width <= high:
            part = math.log(width / low) / math.log(high / low)
            below, above = speed.widths[low], speed.widths[high]
            mixed = {
                name: getattr(below, name) ** (1 - part) * getattr(above, name) ** part
                for name in WidthRates.model_fields
            }
            return WidthRates(**mixed)
    return speed.widths[known[-1]]


def token_seconds(model: ModelConfig, speed: HostSpeed) -> float:
    """Of one rank for the products of one token, forward and backward, in a whole pass."""
    return sum(_product_seconds(model, speed, 1)) * speed.pass_correction


def update_seconds(model: ModelConfig, speed: HostSpeed, table_dtype: str) -> tuple[float, float]:
    """Of one rank for the optimizer's step, whatever the batch: Muon, then AdamW."""
    muon = muon_flops(model) / rates_at(speed, model.dim).muon
    return muon, _moved_bytes(model, table_dtype) / speed.adamw_bytes_per_second


def pass_correction(model: ModelConfig, speed: HostSpeed, tokens: int, seconds: float) -> float:
    """How much longer a whole pass took than its parts take by themselves. It was one of several,
    whose gradients add up."""
    traffic = _traffic(model, 2) - _traffic(model, 1)
    parts = sum(_product_seconds(model, speed, tokens))
    return seconds / (parts + traffic / speed.memory_bytes_per_second)


def _traffic(model: ModelConfig, passes: int, table_dtype: str = "float32") -> int:
    """Bytes of gradients. Each pass fills one for every table with zeros; all but the first then
    add all gradients to those of the passes before."""
    counts = parameter_counts(model)
    tables = GRADIENT_BYTES[table_dtype] * (counts.wte + counts.value_embeds)
    others = 4 * (counts.total - counts.wte - counts.value_embeds)
    return tables * passes + ADDED_TRANSFERS * (tables + others) * (passes - 1)


def _moved_bytes(model: ModelConfig, table_dtype: str) -> int:
    """Of AdamW's update."""
    counts = parameter_counts(model)
    tables = GRADIENT_BYTES[table_dtype] * (counts.wte + counts.value_embeds)
    return ADAMW_TRANSFERS * (tables + 4 * (counts.lm_head + counts.scalars))


def _product_seconds(
    model: ModelConfig, speed: HostSpeed, tokens: int
) -> tuple[float, float, float]:
    """Of blocks, attention and head."""
    rates = rates_at(speed, model.dim)
    return (
        tokens * block_product_flops(model) / rates.products,
        tokens * attention_flops(model) / rates.attention,
        tokens * head_flops(model) / rates.head,
    )


def _rank_terms(
    model: ModelConfig, load: RankLoad, speed: HostSpeed, table_dtype: str, correction: float
) -> list[Term]:
    rates, tokens = rates_at(speed, model.dim), load.rows * model.sequence_length
    blocks, attention, head = _product_seconds(model, speed, tokens)
    traffic = _traffic(model, load.passes, table_dtype)
    muon, adamw = update_seconds(model, speed, table_dtype)

    def detail(part: float, rate: float) -> str:
        return f"{tokens:,} tokens x {part / 1e6:,.0f} MFLOPs at {rate / 1e9:,.1f} GFLOP/s"

    passes = [
        Term("blocks", blocks, detail(block_product_flops(model), rates.products)),
        Term("attention", attention, detail(attention_flops(model), rates.attention)),
        Term("head", head, detail(head_flops(model), rates.head)),
        Term(
            "memory",
            traffic / speed.memory_bytes_per_second,
            f"{traffic / 1e9:,.2f} GB of gradients in {_passes(load.passes)} at "
            f"{speed.memory_bytes_per_second / 1e9:,.1f} GB/s",
        ),
    ]
    terms = [
        *(replace(term, seconds=term.seconds * speed.pass_correction) for term in passes),
        Term("muon", muon, f"{muon_flops(model) / 1e9:,.0f} GFLOPs, whatever the batch"),
        Term(
            "adamw", adamw, f"{_moved_bytes(model, table_dtype) / 1e9:,.2f} GB, whatever the batch"
        ),
    ]
    update, one_pass = speed.launch_seconds
    launches = model.depth * (update + one_pass * load.passes)
    waiting = launches - sum(term.seconds for term in terms)
    if waiting > 0:
        terms.append(Term("kernels", waiting, f"the CPU takes {launches:.2f} s to start them"))
    return [Term(term.name, term.seconds * correction, term.detail) for term in terms]


def _exchange_terms(
    model: ModelConfig,
    sent: Sequence[GradientMessage],
    link: LinkSpeed,
    ranks: int,
    layer_seconds: float,
) -> list[Term]:
    """Messages go one after the other over the link, each from when its gradient is whole; what is
    not through when backward ends is what the step waits for."""
    total = sum(message.bytes for message in sent)
    cost = total * link.cpu_seconds_per_byte
    ready = _ready(model, layer_seconds + cost / model.depth)
    free_at = wire = 0.0
    for message in sent:
        # A ring sums in 2 (ranks - 1) messages; the latency is that of two ranks.
        takes = message.bytes / link.bytes_per_second + link.latency_seconds * (ranks - 1)
        free_at = max(free_at, ready(message.layer)) + takes
        wire += takes
    exposed = max(0.0, free_at - ready(-1))
    return [
        Term("exchange", cost, "of computing that sending and adding takes"),
        Term(
            "wire",
            wire,
            f"{total / 1e6:,.1f} MB from each rank at {8 * link.bytes_per_second / 1e6:,.0f} "
            "Mbit/s",
        ),
        Term("overlap", exposed - wire, "of it while backward goes on"),
    ]


def _ready(model: ModelConfig, layer_seconds: float) -> Callable[[int], float]:
    """Layer -> seconds from the begin of backward until it has left that layer."""
    return lambda layer: (model.depth - max(layer, 0)) * layer_seconds


def _passes(count: int) -> str:
    return "1 pass" if count == 1 else f"{count:,} passes"
