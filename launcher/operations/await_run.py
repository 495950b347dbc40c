"""Wait for the end of a run, and say how it ended."""

from __future__ import annotations

from launcher.errors import LaunchError, RunFailed
from launcher.runs.failure import Failure
from launcher.runs.folder import DISK_FULL_BYTES
from launcher.runs.follow import Follower
from launcher.runs.overrides import needs_new_run
from launcher.runs.run import Run, run_address
from launcher.runs.summary import Summary


def await_run(run: Run) -> Summary:
    """Return when a run has ended.

    Raises RunFailed if it failed or its driver died, LaunchError if its cluster cannot be asked.
    """
    for _ in Follower(run, from_now=True).until_end():
        pass
    return require_summary(run)


def require_summary(run: Run) -> Summary:
    """Return how a run ended. Raises as `await_run`."""
    folder, name = run.folder, run_address(run)
    summary = folder.summary()
    if summary is None and not run.is_live:
        raise LaunchError(
            f"whether run '{name}' goes on is not known: its cluster could not be asked",
            fix=f"launch logs {name} -f   asks again",
        )
    if summary is None:
        free = run.free_bytes()
        full = free is not None and free < DISK_FULL_BYTES
        raise RunFailed(
            f"the disk of run '{name}' is full"
            if full
            else f"the driver of run '{name}' died without a word",
            fix=f"launch resume {name}   (its log: {folder.log})",
        )
    if summary.status == "failed":
        failure = folder.failure() or Failure(message="see its log")
        fix = failure.fix or f"see {folder.log}"
        if needs_new_run(fix, steps=summary.steps):
            then = f"launch recipe {summary.recipe} ...   begins a new run with that"
        else:
            then = f"launch resume {name}   goes on then"
        raise RunFailed(f"run '{name}' failed: {failure.message}", fix=f"{fix}\n{then}")
    return summary
