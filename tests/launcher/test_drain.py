"""What is said of a run that has ended while a node of it is drained, and of its nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
from records import append_events

from launcher.cli.render.run_end import ended_message
from launcher.runs.events import ResizeEvent
from launcher.runs.folder import RunFolder
from launcher.runs.state import last_members


@pytest.mark.parametrize(
    ("status", "step", "words"),
    [
        (
            "stopped", 12, "run 'c/a' has ended (stopped), last saved at step 12\n"
            "  launch resume c/a   goes on without two, with the same rows",
        ),
        ("finished", 40, "run 'c/a' has ended (finished), last saved at step 40"),
        ("failed", 0, "run 'c/a' has ended (failed), nothing saved yet"),
    ],
)  # fmt: skip
def test_a_run_that_has_ended_is_told_as_it_is(status: str, step: int, words: str) -> None:
    assert ended_message("c/a", status, step, "two") == words


def test_the_nodes_of_a_run_are_those_of_its_last_change(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert last_members(folder, ("one", "two")) == ("one", "two")
    for nodes in (("one",), ("one", "three")):
        append_events(folder, ResizeEvent.now(step=3, before=(), nodes=nodes, why=""))
    assert last_members(folder, ("one", "two")) == ("one", "three")
