"""What lies between two hosts, measured by sums of both as in training."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from launcher.planner.measurement import LinkSpeed

TENSOR_BYTES = [2**power for power in (16, 18, 20, 22, 24, 25)]  # bytes: 64 KB to 32 MB
SMALL_REPEATS, LARGE_REPEATS = 50, 3
MAX_REPEAT_SECONDS = 3.0  # of one all-reduce: one of a larger tensor would take longer
SPIN_SECONDS = 1.0  # ten of the kernel's periods in which a limited process gets its part


def measure_link(group: Any, device: torch.device) -> LinkSpeed:
    """On both ranks of `group`, at once. Of two ranks each sends what a tensor has to sum it: half
    of it twice. The figures are those of the slower end."""

    def slower_of_both(seconds: float) -> float:
        value = torch.tensor(seconds, dtype=torch.float64, device=device)
        dist.all_reduce(value, dist.ReduceOp.MAX, group=group)
        return value.item()

    def all_reduce_seconds(tensor: torch.Tensor, repeats: int) -> list[float]:
        return [
            _time_call(lambda: dist.all_reduce(tensor, group=group), device) for _ in range(repeats)
        ]

    # A GPU computes on while a core waits for it.
    share = _core_share() if device.type == "cpu" else math.inf
    small = torch.zeros(2, device=device)
    all_reduce_seconds(small, 3)
    latency = slower_of_both(statistics.median(all_reduce_seconds(small, SMALL_REPEATS)))
    for size in TENSOR_BYTES:
        tensor = torch.zeros(size // 4, device=device)
        all_reduce_seconds(tensor, 1)
        computed = time.process_time()
        seconds = statistics.median(all_reduce_seconds(tensor, LARGE_REPEATS))
        computed = (time.process_time() - computed) / LARGE_REPEATS
        seconds = slower_of_both(seconds)
        if 4 * seconds > MAX_REPEAT_SECONDS:
            break
    return LinkSpeed(
        bytes_per_second=size / max(seconds - latency, seconds / 2),  # of a link as fast as memory
        latency_seconds=latency,
        cpu_seconds_per_byte=slower_of_both(computed / share) / size,
    )


def _core_share() -> float:
    """Of a core, that this process gets: less than one where something limits it, and then sending
    takes as much more of its computing."""
    started_at, computed = time.perf_counter(), time.process_time()
    while (seconds := time.perf_counter() - started_at) < SPIN_SECONDS:
        pass
    return min(1.0, (time.process_time() - computed) / seconds)


def _time_call(call: Callable[[], object], device: torch.device) -> float:
    started_at = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started_at
