"""Where the seconds of a recovery went, as rank 0 completes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from records import append_events, append_metrics, make_folder, make_metric

from launcher.cli.render.run_progress import event_line
from launcher.runs.events import Event, RestartEvent, read_events
from launcher.runs.folder import RunFolder
from launcher.runs.state import RunState
from launcher.training.recovery_worker import RecoveryWorker

GROUP = {"detection": 0.5, "teardown": 0.1, "wait": 0.0, "start": 0.4, "import": 0.0, "group": 0.2}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_folder(tmp_path, cluster="c", steps=40)


def restarts(folder: RunFolder) -> list[RestartEvent]:
    """What the worker has written."""
    events = [event for event in read_events(folder.events) if isinstance(event, RestartEvent)]
    return [event for event in events if event.stage in ("step", "replay")]


def recover(
    folder: RunFolder, *, told_of: int, reached: int, steps: range, planned: bool = False
) -> list[bool]:
    """Attempt 1 makes `steps`. `told_of`: the attempt that the controller has written of."""

    def tell(event: Event) -> None:
        append_events(folder, event)

    details = {"planned": planned, "seconds": 1.2, "stages": GROUP}
    tell(RestartEvent.now(stage="group", attempt=told_of, **details))
    worker = RecoveryWorker(folder, tell, attempt=1, reached=reached)
    worker.loaded()
    return [worker.step(step) for step in steps]


def test_steps_that_were_lost_are_told_apart(folder: RunFolder) -> None:
    assert recover(folder, told_of=1, reached=12, steps=range(11, 14)) == [True, True, False]
    first, replay = restarts(folder)
    assert (first.attempt, first.step, first.replays) == (1, 11, 2)
    assert first.stages.keys() == GROUP.keys() | {"load", "step"}
    assert first.seconds == pytest.approx(sum(first.stages.values()), abs=0.01)
    assert (replay.attempt, replay.steps) == (1, 2)
    words = event_line(first)
    assert words is not None and words.startswith(
        "step 11 made 1.2 s after the fault (detection 0.5"
    )


def test_nothing_was_lost(folder: RunFolder) -> None:
    assert recover(folder, told_of=1, reached=10, steps=range(11, 12)) == [False]
    assert [event.stage for event in restarts(folder)] == ["step"]


def test_a_controller_that_has_not_written_yet_is_not_waited_for(folder: RunFolder) -> None:
    recover(folder, told_of=0, reached=10, steps=range(11, 12))
    assert restarts(folder) == []


def test_the_list_of_runs_has_the_last_one(folder: RunFolder) -> None:
    recover(folder, told_of=1, reached=10, steps=range(11, 12))
    recovery = RunState.of(folder, alive=True).recovery
    assert recovery is not None and recovery.keys() == {"seconds", "stages", "step", "replays"}


def test_a_change_that_was_planned_is_no_restart_after_a_fault(folder: RunFolder) -> None:
    recover(folder, told_of=1, reached=10, steps=range(11, 12), planned=True)
    # The controller has told of the group, which has made no step yet.
    assert RunState.of(folder, alive=True).restarts == 0
    append_metrics(folder, make_metric(10, attempt=0), make_metric(11, attempt=1))
    state = RunState.of(folder, alive=True)
    assert (state.restarts, state.recovery) == (0, None)
    words = event_line(restarts(folder)[0])
    assert words is not None and words.startswith("step 11 made 1.2 s after the group was changed")
    append_metrics(folder, make_metric(12, attempt=2))
    assert RunState.of(folder, alive=True).restarts == 1
