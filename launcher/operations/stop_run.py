"""Save and stop a run."""

from __future__ import annotations

from collections.abc import Iterator

from launcher.runs.follow import Follower, RunUpdate
from launcher.runs.run import Run


def stop_run(run: Run) -> Iterator[RunUpdate]:
    """Ask for a checkpoint and an end after the current step; return updates until it has ended."""
    follower = Follower(run, from_now=True)
    run.request_stop()
    return follower.until_end()
