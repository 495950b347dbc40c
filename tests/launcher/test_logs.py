"""`launch logs`: steps in order, each once, and what happened where it happened."""

from __future__ import annotations

from typing import Any

from records import event, make_metric

from launcher.cli.render.log_lines import log_lines
from launcher.runs.events import Event, parse_event
from launcher.runs.metric import Metric


def step(number: int, time: float, *, attempt: int = 0) -> Metric:
    return make_metric(number, time=time, attempt=attempt)


def shown(steps: list[Metric], *events: Event) -> list[str]:
    """Of steps their number."""
    return [line.split("  ")[0] for line in log_lines(steps, events, steps=9)]


def test_events_stand_between_the_steps_in_the_order_of_time() -> None:
    assert shown(
        [step(1, 2), step(2, 5)],
        event("evaluate", time=1, step=0, val_bpb=3.5),
        event("text", time=3, step=2, seconds=4.0),
        event("evaluate", time=4.5, step=2, val_bpb=3.0),  # in the step's own line
        event("checkpoint", time=6, step=2, seconds=1.0),
        event("stop", time=7, step=2),
        event("finish", time=8, step=2, status="stopped"),
    ) == [
        "step 0: val_bpb 3.5000", "step 1/9", "step 2 waited for text (4.0 s)", "step 2/9",
        "step 2: checkpoint saved (1.0 s)", "stopped",
    ]  # fmt: skip


def test_a_slow_step_is_told_with_who_was_late() -> None:
    slow = {"time": 3, "step": 1, "seconds": 20.0, "median": 2.5}
    late: dict[str, Any] = {"rank": 1, "compute": [2.0, 19.5]}
    assert shown(
        [step(1, 2)],
        event("slow", **slow, **late, node="attic"),
        event("slow", **slow, **late),
        event("slow", **slow, rank=None, compute=[2.0, 2.1]),
        event("memory", time=4, words="steps stand still"),
    )[1:] == [
        "step 1 was slow: 20 s, 8 times the usual 2.5 s: attic was late, it computed for 20 s",
        "step 1 was slow: 20 s, 8 times the usual 2.5 s: rank 1 was late, it computed for 20 s",
        "step 1 was slow: 20 s, 8 times the usual 2.5 s: no rank computed that long, they waited "
        "for one another",
        "steps stand still",
    ]


def test_events_that_make_no_sense_are_told_as_far_as_they_do() -> None:
    """Of a damaged disk, or another version."""
    slow = event("slow", step=3, seconds=4.0, median=0.0, rank=7, compute=[1.0])
    plain = parse_event({"kind": "checkpoint", "step": "nine"})
    assert log_lines([], [slow, plain, parse_event({"kind": 5, "step": -1})], 9) == [
        "step 3 was slow: 4.0 s: no rank computed that long, they waited for one another"
    ]


def test_a_failure_stands_before_the_steps_that_were_made_again() -> None:
    assert shown(
        [step(1, 1), step(2, 6), step(3, 7)],  # the first attempt had made 2 and 3 too
        event("checkpoint", time=2, step=1),
        event("finish", time=4, step=3, status="failed", message="the disk is full"),
        event("resume", time=5, step=1),
        event("finish", time=8, step=3, status="finished"),
    ) == [
        "step 1/9", "step 1: checkpoint saved", "failed: the disk is full", "went on from step 1",
        "step 2/9", "step 3/9", "finished",
    ]  # fmt: skip


def test_steps_of_an_older_version_stand_before_what_shows_that_they_were_made() -> None:
    """Its metrics have no time. The first attempt's 3 and 4 were made again by the second; 6 by a
    version that writes the time."""
    untimed = [make_metric(number, attempt=int(number > 2)) for number in (1, 2, 3, 4, 5)]
    assert all("time" not in metric.as_json() for metric in untimed)
    assert shown(
        [*untimed, step(6, 30, attempt=2)],
        event("start", time=1, stage="workers", attempt=0, seconds=1),
        event("evaluate", time=2, step=0, val_bpb=3.5),
        event("checkpoint", time=3, step=1),
        event("finish", time=4, step=4, status="failed", message="no more"),
        event("restart", time=5, stage="workers", attempt=1, seconds=1),
        event("resume", time=6, step=2),
        event("text", time=7, step=4, seconds=9),
        event("checkpoint", time=8, step=4),
        event("restart", time=9, stage="workers", attempt=2, seconds=1),
        event("resume", time=10, step=5),
        event("finish", time=31, step=6, status="finished"),
    ) == [
        "step 0: val_bpb 3.5000", "step 1/9", "step 1: checkpoint saved", "step 2/9",
        "failed: no more", "restarted (1.0 s): attempt 1", "went on from step 2", "step 3/9",
        "step 4 waited for text (9.0 s)", "step 4/9", "step 4: checkpoint saved", "step 5/9",
        "restarted (1.0 s): attempt 2", "went on from step 5", "step 6/9", "finished",
    ]  # fmt: skip
    assert shown(untimed) == [f"step {number}/9" for number in (1, 2, 3, 4, 5)]
    died = event("finish", time=1, step=5, status="failed", message="out")
    assert shown(untimed, died)[-2:] == ["step 5/9", "failed: out"]


def test_there_may_be_no_news() -> None:
    assert shown([step(1, 1)]) == ["step 1/9"]
    assert shown([]) == []


def test_a_run_without_a_step_has_a_log() -> None:
    assert shown(
        [],
        event("progress", time=1, stage="download", done=1e6, total=1e8),
        event("progress", time=2, stage="download", done=4e7, total=1e8),
        event("fault", time=3, what="text", message="a: refused: trying again"),
        event("progress", time=4, stage="wait", done=0, total=None),
        event("finish", time=5, step=0, status="failed", message="nothing came"),
    ) == [
        "download 40% of 100 MB", "fault: a: refused: trying again",
        "another process prepares the same text: waiting for it", "failed: nothing came",
    ]  # fmt: skip
