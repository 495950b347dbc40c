"""Gradients between ranks: each parameter's is summed while backward goes on with the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class GradientExchange:
    """Sums the gradients of all ranks, so that every rank has the gradient of the whole step.

    Losses are divided by the tokens of the whole step before backward, hence a plain sum and not
    a mean. `wire_bytes` counts what this rank has sent, by the ring all-reduce
    that gloo and NCCL use: 2 (N - 1) / N of a tensor's bytes.

    Parameters are handed over in the order in which backward finishes them, which is the same on
    every rank because every rank runs the same graph.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], world_size: int) -> None:
        self.world_size = world_size
        self.wire_bytes = 0
        self._open = False
        self._pending: list[Any] = []
        if world_size > 1:
            for parameter in parameters:
                parameter.register_post_accumulate_grad_hook(self._send)

    def open(self) -> None:
        """The next backward is the step's last one: send each gradient as soon as it is whole."""
        self._open = True

    def finish(self) -> None:
        """Wait until every gradient is the sum over all ranks."""
        for work in self._pending:
            work.wait()
        self._pending.clear()
        self._open = False

    def sum(self, values: Tensor) -> Tensor:
        """Sum a small tensor over all ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)
            self._count(values)
        return values

    def _send(self, parameter: Tensor) -> None:
        if self._open:
            assert parameter.grad is not None
            self._pending.append(dist.all_reduce(parameter.grad, async_op=True))
            self._count(parameter.grad)

    def _count(self, tensor: Tensor) -> None:
        share = 2 * (self.world_size - 1) / self.world_size
        self.wire_bytes += round(share * tensor.numel() * tensor.element_size())


def agree(value: int, world_size: int, device: torch.device) -> list[int]:
    """Every rank's value, in rank order, on every rank."""
    if world_size == 1:
        return [value]
    mine = torch.tensor([value], dtype=torch.int64, device=device)
    every = [torch.zeros_like(mine) for _ in range(world_size)]
    dist.all_gather(every, mine)
    return [int(each) for each in every]
