"""What the workers' observer writes into a run's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.runs.folder import RunFolder
from launcher.runs.records import read_records
from launcher.training.worker import RunObserver


# A worker's files are open until it ends.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_slow_step_is_written_with_the_name_of_the_node_that_was_late(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    observer = RunObserver(folder, {"entered": 0.0}, leads=True, gauges=None)
    slow = {"step": 9, "seconds": 20.0, "median": 2.0, "compute": [2.0, 19.0]}
    observer.event("slow", **slow, rank=1)  # on a machine of its own nodes have no names
    observer.nodes = ["attic", "cellar"]
    observer.event("slow", **slow, rank=1)
    observer.event("slow", **slow, rank=None)
    written = [(event["rank"], event.get("node")) for event in read_records(folder.events)]
    assert written == [(1, None), (1, "cellar"), (None, None)]
