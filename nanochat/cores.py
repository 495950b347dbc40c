"""The cores of this machine: which CPUs share one, and which are of the fast kind.

Two CPUs of one core (SMT) have one set of arithmetic units between them, and on a hybrid Intel the
efficiency cores have less than half of what a performance core has: all CPUs are not always the
fastest number of threads. Imports no torch.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cores:
    """Numbers of CPUs, ascending. `usable`: that this process may use; `physical`: of these one per
    core; `performance`: of these those of the fast kind, empty where all are of one kind."""

    usable: tuple[int, ...]
    physical: tuple[int, ...]
    performance: tuple[int, ...]

    def thread_counts(self, max_threads: int) -> list[int]:
        """Numbers of threads that are worth a try, ascending: powers of two, the kinds of cores
        above, and all, none above `max_threads`."""
        max_threads = min(max_threads, len(self.usable))
        counts = {2**power for power in range(max_threads.bit_length())}
        counts |= {len(self.physical), len(self.performance), max_threads}
        return sorted(count for count in counts if 1 <= count <= max_threads)


def find_cores(usable: Collection[int] | None = None, root: Path = Path("/")) -> Cores:
    """`usable`: default: those of this process. `root`: of the file system. Where the system does
    not say which CPUs are of one core, each is one of its own."""
    if usable is None:
        usable = os.sched_getaffinity(0)
    devices = root / "sys/devices"
    physical: dict[tuple[int, ...], int] = {}
    for cpu in sorted(usable):
        siblings: tuple[int, ...] = (cpu,)
        with contextlib.suppress(OSError, ValueError):
            file = devices / f"system/cpu/cpu{cpu}/topology/thread_siblings_list"
            siblings = parse_cpus(file.read_text())
        physical.setdefault(siblings, cpu)
    fast: tuple[int, ...] = ()
    with contextlib.suppress(OSError, ValueError):
        fast = parse_cpus((devices / "cpu_core/cpus").read_text())
    performance = tuple(cpu for cpu in physical.values() if cpu in fast)
    if len(performance) == len(physical):
        performance = ()
    return Cores(tuple(sorted(usable)), tuple(physical.values()), performance)


def parse_cpus(text: str) -> tuple[int, ...]:
    """The kernel's lists: 0-3,8 -> 0, 1, 2, 3, 8. Raises ValueError."""
    found: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)
