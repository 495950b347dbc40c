"""Runs that want the same hosts take turns: a lock for each host, on the head."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nanochat.lock import LockHeld, hold_lock

POLL_SECONDS = 0.5


@contextmanager
def acquire_hosts(
    folder: Path,
    nodes: Sequence[str],
    run: str,
    *,
    waits_for: Callable[[str], None],
    given_up: Callable[[], bool],
) -> Iterator[None]:
    """Hold the slots of all these nodes; none where the run was given up while it waited.

    `folder`: of the cluster. waits_for(other): the run that has one of them. A driver that dies
    lets go of its slots.
    """
    folder /= "slots"
    folder.mkdir(exist_ok=True)
    told = ""
    with ExitStack() as held:
        for node in sorted(nodes):  # all in one order: no two wait for each other
            lock = folder / f"{node}.lock"
            while not _taken(lock, held):
                if given_up():
                    yield
                    return
                other = lock.read_text().strip()
                if other not in ("", told):
                    waits_for(other)
                    told = other
                time.sleep(POLL_SECONDS)
            lock.write_text(f"{run}\n")
        yield


def _taken(lock: Path, held: ExitStack) -> bool:
    try:
        held.enter_context(hold_lock(lock, seconds=0))
    except LockHeld:
        return False
    return True
