"""What ranks exchange in every step: one small all-reduce that keeps them in step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from nanochat.exchange import GradientExchange


@dataclass(frozen=True, kw_only=True)
class SyncedStep:
    """The same on every rank. `compute`: seconds of each rank in the step before; `failed`: of each
    rank the step of the checkpoint that it could not write, or 0. In rank order."""

    loss: float
    stop: bool
    save: bool
    compute: Sequence[float]
    failed: Sequence[int]


def sync_step(
    exchange: GradientExchange, loss: Tensor, *, rank: int, stop: bool, due: bool, writing: bool,
    computed: float, failed: int,
) -> SyncedStep:  # fmt: skip
    """`loss`: this rank's part. `stop`, `due`: rank 0 asks for an end, or for a checkpoint, which
    is one where no rank is `writing` still: their disks are of unequal speed."""
    ranks = exchange.world_size
    shared = loss.new_zeros(4 + 2 * ranks)
    shared[0], shared[1], shared[2], shared[3] = loss, stop, due, writing
    shared[4 + rank], shared[4 + ranks + rank] = computed, failed  # steps to 2^24 are exact
    mean, stops, dues, writers, *by_rank = exchange.sum(shared).tolist()
    return SyncedStep(
        loss=mean,
        stop=stops > 0,
        save=dues > 0 and writers == 0,
        compute=by_rank[:ranks],
        failed=[int(step) for step in by_rank[ranks:]],
    )
