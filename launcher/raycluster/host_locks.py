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
    on_wait: Callable[[str], None],
    is_cancelled: Callable[[], bool],
) -> Iterator[None]:
    """Hold the locks of all these nodes; of none if `is_cancelled` while it waits.

    `folder`: of the cluster. `on_wait` is called with the name of the run that holds one of them.
    A driver that dies releases its locks.
    """
    folder /= "slots"
    folder.mkdir(exist_ok=True)
    notified = ""
    with ExitStack() as held:
        for node in sorted(nodes):  # all in one order: no two wait for each other
            lock = folder / f"{node}.lock"
            while not _try_lock(lock, held):
                if is_cancelled():
                    yield
                    return
                holder = lock.read_text().strip()
                if holder not in ("", notified):
                    on_wait(holder)
                    notified = holder
                time.sleep(POLL_SECONDS)
            lock.write_text(f"{run}\n")
        yield


def _try_lock(lock: Path, held: ExitStack) -> bool:
    try:
        held.enter_context(hold_lock(lock, seconds=0))
    except LockHeld:
        return False
    return True
