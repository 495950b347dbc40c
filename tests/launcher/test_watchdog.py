"""When a group counts as hanging, and what is kept of its ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from records import event, make_metric

from launcher.runs.events import Event
from launcher.training.stacks import dump_and_kill, is_frozen, is_in_collective
from launcher.training.watchdog import (
    FIRST_STEP_LIMIT_SECONDS,
    MAX_DOUBLINGS,
    StepPace,
    count_doublings,
    since_last_start,
)

D4 = StepPace(step=2.0, evaluation=20.0, stall=0.2, checkpoint=6.0)
LAN = {"floor": 20.0, "state_bytes": 500e6}

SLEEPER = """
import ctypes, time
ctypes.CDLL(None).prctl(0x59616D61, -1, 0, 0, 0)
def waits_for_the_others():
    print(flush=True)
    time.sleep(600)
waits_for_the_others()
"""


@pytest.mark.parametrize(
    ("pace", "now", "seconds"),
    [
        (D4, "", 20),  # the floor: a checkpoint is written beside the steps
        (D4, "may_checkpoint", 8 * 6),  # and the last one is waited for
        (StepPace(14.0, 1.0, 3.0, 3.0), "", 8 * 14),
        (StepPace(2.0, 1.0, 9.0, 9.0), "", 8 * 9),  # no memory for a copy: steps stand still
        (D4, "may_evaluate", 8 * 22),
        (StepPace(2.0, None, None, None), "", 60),  # nothing saved yet
        (D4, "before_first_step", 20 + 60 + 50 + 8 * 2),
        (
            StepPace(None, None, None, None),
            "before_first_step may_evaluate",
            FIRST_STEP_LIMIT_SECONDS,
        ),
        (StepPace(2.0, None, 1.0, 1.0), "may_evaluate", FIRST_STEP_LIMIT_SECONDS),
    ],
)
def test_limits(pace: StepPace, now: str, seconds: float) -> None:
    flags = {
        name: name in now.split()
        for name in ("before_first_step", "may_evaluate", "may_checkpoint")
    }
    assert pace.limit(**LAN, **flags) == pytest.approx(seconds)


def test_limits_are_doubled_until_the_median_knows() -> None:
    hangs = [
        event("fault", time=9.5, what="hang", message="no sign", frozen=frozen)
        for frozen in (False, True, False)
    ]
    assert count_doublings([], hangs) == 2 and count_doublings([], hangs * 3) == MAX_DOUBLINGS
    steps = [make_metric(second + 1, time=float(second)) for second in range(40)]
    assert count_doublings(steps[:20], hangs) == 2  # the first of these was made before them
    assert count_doublings(steps[5:25], hangs) == 2
    assert count_doublings(steps[10:30], hangs) == 0
    assert count_doublings(steps[10:29], hangs) == 2


def test_a_pace_is_of_recent_steps_and_of_whole_evaluations() -> None:
    seconds = [9.0] * 5 + [2.0] * 20
    metrics = [make_metric(step, step_seconds=each) for step, each in enumerate(seconds, start=1)]
    events = [
        event("evaluate", step=0, val_bpb=3.0, seconds=3.0),  # of 8,192 tokens
        event("evaluate", step=100, val_bpb=3.0, seconds=20.0),
        event("checkpoint", step=100, seconds=1.5, stalled=0.2),
        event("checkpoint", step=120, seconds=1.4, stalled=0.3),
    ]
    assert StepPace.of(metrics, events, 65_536) == StepPace(2.0, 24.0, 0.3, 1.5)
    before = [event("checkpoint", step=1, seconds=1.5)]  # written while steps stood still
    assert StepPace.of([], before, 65_536) == StepPace(None, None, 1.5, 1.5)
    assert StepPace.of([], [], 65_536) == StepPace(None, None, None, None)


@pytest.mark.parametrize(
    "change", [event("resize", nodes=["one"]), event("start", stage="hardware")]
)
def test_what_other_machines_made_says_nothing(change: Event) -> None:
    began, saved = event("restart", stage="workers"), event("checkpoint", step=2)
    events = [began, saved, began, change, began, event("evaluate", step=4, val_bpb=3.0)]
    metrics = [make_metric(step, attempt=n) for step, n in ((1, 0), (2, 0), (3, 1), (4, 2), (5, 2))]
    assert since_last_start(metrics, events) == (metrics[3:], events[3:])
    assert since_last_start(metrics, events[:3]) == (metrics, events[:3])


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", SLEEPER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_stacks_of_a_rank(sleeper: subprocess.Popen[str]) -> None:
    [text] = dump_and_kill({1: sleeper.pid}).values()
    assert "waits_for_the_others" in text and not is_frozen(text)
    assert not is_in_collective(text)
    assert sleeper.wait(10) == -signal.SIGKILL
    assert is_frozen(dump_and_kill({0: sleeper.pid})[0])


def test_a_frozen_rank_is_seen_through_and_ended(sleeper: subprocess.Popen[str]) -> None:
    os.kill(sleeper.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED)
    [text] = dump_and_kill({0: sleeper.pid}).values()
    assert text.startswith("state T (stopped)") and is_frozen(text)
    assert "waits_for_the_others" in text
    assert sleeper.wait(10) == -signal.SIGKILL
