"""Gradients between ranks: each parameter's is summed while backward goes on with the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class GradientExchange:
    """Sums the gradients of all ranks, so that every rank has the gradient of the whole step.

    Losses are divided by the tokens of the whole step before backward, hence a plain sum and not
    a mean. Of a lookup table only the rows travel that the step's tokens touch; the others' are
    zero on every rank. Every rank knows the rows of all ranks, so none are sent.

    `wire_bytes` counts what this rank has sent, by the rings that gloo and NCCL use: N ranks send
    2 (N - 1) / N of a tensor's bytes each to sum it, and N - 1 times their own rows of a table.

    Parameters are handed over in the order in which backward finishes them, which is the same on
    every rank because every rank runs the same graph. DistributedDataParallel with sparse tables
    sends as many bytes (5.7 MB against 5.5 for a table of d8 at 32,768 tokens on 2 ranks), but
    imports torch's compiler before the first step, 2.7 s.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], tables: Iterable[nn.Parameter], world_size: int
    ) -> None:
        """`tables`: those of `parameters` whose rows are looked up by token ids."""
        self.world_size = world_size
        self.wire_bytes = 0
        self._open = False
        self._touched: Sequence[Tensor] = ()
        self._pending: list[_Sum] = []
        if world_size > 1:
            looked_up = set(tables)
            for parameter in parameters:
                send = self._send_rows if parameter in looked_up else self._send
                parameter.register_post_accumulate_grad_hook(send)

    def open(self, touched: Sequence[Tensor]) -> None:
        """The next backward is the step's last one: send each gradient as soon as it is whole.

        touched: of each rank, in rank order, the (n,) ids of its tokens in this step, each once.
        """
        self._open = True
        self._touched = touched

    def finish(self) -> None:
        """Wait until every gradient is the sum over all ranks."""
        for pending in self._pending:
            pending.finish()
        self._pending.clear()
        self._open = False

    def sum(self, values: Tensor) -> Tensor:
        """Sum a small tensor over all ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)
            self._count_sum(values)
        return values

    def _send(self, parameter: Tensor) -> None:
        if self._open:
            assert parameter.grad is not None
            self._pending.append(_Sum(dist.all_reduce(parameter.grad, async_op=True)))
            self._count_sum(parameter.grad)

    def _send_rows(self, table: Tensor) -> None:
        if self._open:
            assert table.grad is not None
            longest = max(len(ids) for ids in self._touched)
            own = self._touched[dist.get_rank()]
            rows = table.grad.new_zeros(longest, table.size(1))  # gathered tensors are of one size
            rows[: len(own)] = table.grad[own]
            gathered = [torch.empty_like(rows) for _ in self._touched]
            work = dist.all_gather(gathered, rows, async_op=True)
            self._pending.append(_RowSum(work, table.grad, self._touched, gathered))
            self.wire_bytes += (self.world_size - 1) * rows.numel() * rows.element_size()

    def _count_sum(self, tensor: Tensor) -> None:
        share = 2 * (self.world_size - 1) / self.world_size
        self.wire_bytes += round(share * tensor.numel() * tensor.element_size())


@dataclass
class _Sum:
    """A gradient under way."""

    work: Any

    def finish(self) -> None:
        self.work.wait()


@dataclass
class _RowSum(_Sum):
    """A table's. `gathered`: of each rank the rows that it touched, in rank order."""

    grad: Tensor
    touched: Sequence[Tensor]
    gathered: list[Tensor]

    def finish(self) -> None:
        self.work.wait()
        # From zero and in rank order: sums of the same bits on every rank.
        for ids in self.touched:
            self.grad[ids] = 0
        for ids, rows in zip(self.touched, self.gathered, strict=True):
            self.grad.index_add_(0, ids, rows[: len(ids)])


def all_gather_int(value: int, world_size: int, device: torch.device) -> list[int]:
    """Every rank's value, in rank order, on every rank."""
    if world_size == 1:
        return [value]
    mine = torch.tensor([value], dtype=torch.int64, device=device)
    every = [torch.zeros_like(mine) for _ in range(world_size)]
    dist.all_gather(every, mine)
    return [int(gathered) for gathered in every]


def all_gather_str(message: str, world_size: int) -> list[str]:
    """Every rank's message, in rank order, on every rank. Costs some round trips: use it rarely."""
    if world_size == 1:
        return [message]
    every: list[str] = [""] * world_size
    dist.all_gather_object(every, message)
    return every


def all_reduce_min(value: float, world_size: int, device: torch.device) -> float:
    """The smallest of all ranks' values, on every rank."""
    if world_size == 1:
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(shared, op=dist.ReduceOp.MIN)
    return shared.item()
