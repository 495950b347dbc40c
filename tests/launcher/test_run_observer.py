"""What the workers' observer writes into a run's folder."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from records import append_events, make_spec

from launcher.cli.render.run_progress import event_line
from launcher.runs.events import FaultEvent, ResizeEvent, SlowEvent, read_events
from launcher.runs.folder import RunFolder
from launcher.training.failure_policy import NonRetryableError
from launcher.training.worker import MAX_FUTILE_ATTEMPTS, RunObserver


@pytest.fixture(autouse=True)
def files_of_a_worker() -> Iterator[None]:
    """They are open until it ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def test_a_slow_step_is_written_with_the_name_of_the_node_that_was_late(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    observer = RunObserver(folder, make_spec(entered=0.0), is_rank_zero=True, gauges=None)
    slow = {"step": 9, "seconds": 20.0, "median": 2.0, "compute": [2.0, 19.0]}
    observer.event("slow", **slow, rank=1)  # on a machine of its own nodes have no names
    observer.nodes = ["attic", "cellar"]
    observer.event("slow", **slow, rank=1)
    observer.event("slow", **slow, rank=None)
    events = read_events(folder.events)
    written = [(event.rank, event.node) for event in events if isinstance(event, SlowEvent)]
    assert written == [(1, None), (1, "cellar"), (None, None)]


def test_a_checkpoint_that_failed_is_written_with_the_name_of_its_node(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    observer = RunObserver(folder, make_spec(entered=0.0), is_rank_zero=True, gauges=None)
    fault = {"what": "checkpoint", "step": 9, "message": "could not write it"}
    observer.event("fault", **fault, rank=1)  # on a machine of its own nodes have no names
    observer.nodes = ["attic", "cellar"]
    observer.event("fault", **fault, rank=1)
    observer.event("fault", **fault)
    written = read_events(folder.events)
    nodes = [event.node for event in written if isinstance(event, FaultEvent)]
    assert nodes == [None, "cellar", "attic"]
    assert [event_line(event) for event in written] == [
        f"fault: {who}: could not write it" for who in ("rank 1", "cellar", "attic")
    ]


def begin(folder: RunFolder) -> None:
    observer = RunObserver(folder, make_spec(entered=0.0), is_rank_zero=True, gauges=None)
    observer.begin(1.0, attempts_before=0)


def test_attempts_without_a_new_step_end_the_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for _ in range(MAX_FUTILE_ATTEMPTS):
        begin(folder)
    with pytest.raises(NonRetryableError, match="3 times in a row without a new step"):
        begin(folder)


def test_nodes_that_are_lost_again_and_again_do_not(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for number in range(4 * MAX_FUTILE_ATTEMPTS):
        begin(folder)
        nodes = ("one",) if number % 2 else ("one", "two")
        append_events(folder, ResizeEvent.now(step=0, before=(), nodes=nodes, why=""))
