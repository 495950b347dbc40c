"""The threads that compute for a rank: how many, on which CPUs, and which number is the best."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from nanochat.cores import Cores

NEAR_BEST = 0.97  # of the best rate: what lacks is not worth more threads, or more memory

Returned = TypeVar("Returned")


@dataclass(frozen=True)
class ThreadChoice:
    """`cpus`: what they are pinned to; `rates`: of those that are not, FLOP/s by their number."""

    count: int
    cpus: tuple[int, ...] | None
    rates: dict[int, float]
    reason: str


def try_threads(
    cores: Cores, max_threads: int, rate: Callable[[int, tuple[int, ...] | None], float]
) -> ThreadChoice:
    """The fewest of those within 3% of the fastest; pinned to one CPU of each performance core only
    where that is faster by as much. rate(count, cpus): FLOP/s."""
    rates = {count: rate(count, None) for count in cores.thread_counts(max_threads)}
    best = fewest_of_the_fastest(rates)
    usable = len(cores.usable)
    others = {count: value for count, value in rates.items() if count != best}
    pinned_cpus = cores.performance[:max_threads]
    if pinned_cpus:
        pinned_rate = rate(len(pinned_cpus), pinned_cpus)
        if pinned_rate * NEAR_BEST > max(rates.values()):
            reason = (
                f"{len(pinned_cpus)} of {usable}, one on each performance core: "
                f"{format_giga(pinned_rate)} GFLOP/s; not pinned {_format_rates(rates)}"
            )
            return ThreadChoice(len(pinned_cpus), pinned_cpus, rates, reason)
    reason = f"{best} of {usable}: {format_giga(rates[best])} GFLOP/s"
    if others:
        reason += f"; {_format_rates(others)}"
    return ThreadChoice(best, None, rates, reason)


def fewest_of_the_fastest(rates: Mapping[int, float]) -> int:
    """The smallest number whose rate is within 3% of the highest."""
    highest = max(rates.values())
    return min(number for number, rate in rates.items() if rate >= NEAR_BEST * highest)


def with_threads(count: int, cpus: Sequence[int] | None, call: Callable[[], Returned]) -> Returned:
    """What it returns, from a thread of its own: the threads that compute for it are made there and
    inherit what it is pinned to, and those of another one keep their number."""
    results: list[Returned] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            use_threads(count, cpus)
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def use_threads(count: int, cpus: Sequence[int] | None) -> None:
    """From here on in this thread, which has computed nothing yet where `cpus` are to hold."""
    if cpus:
        with contextlib.suppress(OSError):  # the machine has other CPUs by now
            os.sched_setaffinity(0, cpus)
    torch.set_num_threads(count)


def _format_rates(rates: Mapping[int, float]) -> str:
    return ", ".join(
        f"{count} {'gives' if count == 1 else 'give'} {format_giga(rate)}"
        for count, rate in sorted(rates.items())
    )


def format_giga(rate: float) -> str:
    """Thousands of millions, for people."""
    return f"{rate / 1e9:,.3g}" if rate < 999.5e9 else f"{rate / 1e9:,.0f}"
