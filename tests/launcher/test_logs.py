"""`launch logs`: steps in order, each once, and what happened where it happened."""

from __future__ import annotations

from typing import Any

from launcher.cli.logs import lines


def step(number: int, attempt: int = 0) -> dict[str, Any]:
    return {
        "step": number, "attempt": attempt, "loss": 2.0, "tokens_per_second": 100.0,
        "step_seconds": 1.0,
    }  # fmt: skip


def shown(steps: list[dict[str, Any]], *events: dict[str, Any]) -> list[str]:
    """Of steps their number."""
    return [line.split("  ")[0] for line in lines(steps, events, steps=9)]


def test_events_stand_after_the_step_that_they_follow() -> None:
    assert shown(
        [step(1), step(2)],
        {"kind": "evaluate", "step": 0, "val_bpb": 3.5},
        {"kind": "evaluate", "step": 2, "val_bpb": 3.0},  # in the step's own line
        {"kind": "text", "step": 2, "seconds": 4.0},
        {"kind": "checkpoint", "step": 2, "seconds": 1.0},
        {"kind": "stop", "step": 2},
        {"kind": "finish", "step": 2, "status": "stopped"},
    ) == [
        "step 0: val_bpb 3.5000", "step 1/9", "step 2 waited for text (4.0 s)", "step 2/9",
        "step 2: checkpoint saved (1.0 s)", "stopped",
    ]  # fmt: skip


def test_what_followed_steps_that_were_made_again_stands_before_them() -> None:
    assert shown(
        [step(1), step(2, attempt=1), step(3, attempt=1)],
        {"kind": "checkpoint", "step": 1},
        {"kind": "finish", "step": 3, "status": "failed", "message": "the disk is full"},
        {"kind": "resume", "step": 1},
        {"kind": "finish", "step": 3, "status": "finished"},
    ) == [
        "step 1/9", "step 1: checkpoint saved", "failed: the disk is full", "went on from step 1",
        "step 2/9", "step 3/9", "finished",
    ]  # fmt: skip


def test_a_run_without_a_step_has_a_log() -> None:
    assert shown(
        [],
        {"kind": "progress", "stage": "download", "done": 1e6, "total": 1e8},
        {"kind": "progress", "stage": "download", "done": 4e7, "total": 1e8},
        {"kind": "progress", "stage": "a: refused: trying again", "done": 0, "total": None},
        {"kind": "finish", "step": 0, "status": "failed", "message": "nothing came"},
    ) == ["download 40% of 100 MB", "a: refused: trying again", "failed: nothing came"]
