"""`launch resume --extend`: what changes in run.json, and what is said of the schedule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from records import append_events, make_folder

from launcher.config.recipe import load_recipe
from launcher.errors import InputError
from launcher.runs.events import CheckpointEvent
from launcher.runs.extend import describe_schedule, extend_run
from launcher.runs.folder import RunFolder
from launcher.runs.spec import RunSpec
from launcher.training.train_config import run_config
from nanochat.optimizer.schedule import Schedule


def folder_of(path: Path, saved: int, *settings: str) -> RunFolder:
    recipe = load_recipe("d4", [("--set", setting) for setting in settings]).recipe
    settings_json = recipe.model_dump(mode="json")
    folder = make_folder(path / "mine", steps=recipe.steps_total, settings=settings_json)
    save(folder, saved)
    return folder


def save(folder: RunFolder, step: int) -> None:
    append_events(folder, CheckpointEvent.now(step=step))


def extended(folder: RunFolder, more: int) -> RunSpec:
    """The spec as it is written."""
    extend_run(folder, folder.spec(), more).write(folder.spec_file)
    return folder.spec()


@pytest.mark.parametrize(
    ("horizon", "before"),
    [("steps=1000", 1000), ("tokens=204800", 100), ("tokens_per_scaling_parameter=0.1", 563)],
)
def test_the_length_and_nothing_else_changes(tmp_path: Path, horizon: str, before: int) -> None:
    """Warm-up that followed from the length stays, whatever the length was given as."""
    folder = folder_of(tmp_path, before, horizon, "warmup_steps=null")
    old_spec = folder.spec().as_json()
    old = folder.spec().recipe
    assert old.steps_total == before
    spec = extended(folder, 500)
    new = spec.recipe
    assert (spec.steps, new.steps_total, new.warmup) == (before + 500,) * 2 + (old.warmup,)
    entry = {"from": before, "to": before + 500, "at_step": before}
    assert json.loads(folder.spec_file.read_text())["extended"] == [entry]
    changed = {"steps": spec.steps, "settings": spec.settings, "extended": [entry]}
    assert spec.as_json() == {**old_spec, **changed}
    config = run_config(folder.spec())
    assert (config.steps, config.extended_from) == (before + 500, (before,))
    told = ("steps", "tokens", "tokens_per_scaling_parameter", "warmup_steps")
    assert new.model_dump(exclude=set(told)) == old.model_dump(exclude=set(told))


def test_climbmix_keeps_its_shards(tmp_path: Path) -> None:
    """More of them would be other text; these are read again."""
    folder = folder_of(tmp_path, 10, "steps=1000", "data.source=climbmix")
    source = folder.spec().recipe.text_source
    assert extended(folder, 10**6).settings["data"]["source"] == source


def test_prolonged_twice(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 1000, "steps=1000")
    extended(folder, 500)
    # Nothing was saved with 1,500: the schedule of 1,000 is what the run has followed.
    assert extended(folder, 500).as_json()["extended"] == [
        {"from": 1000, "to": 1500, "at_step": 1000},
        {"from": 1000, "to": 2000, "at_step": 1000},
    ]
    # But for a checkpoint whose event was lost: it is the run's own.
    assert run_config(folder.spec()).extended_from == (1000, 1500)
    save(folder, 2000)
    extended(folder, 1)
    assert run_config(folder.spec()).extended_from == (1000, 1500, 2000)
    with pytest.raises(InputError, match="1,000,002,000 steps"):
        extend_run(folder, folder.spec(), 1_000_000_000 - 1)


def test_what_is_said_of_the_schedule() -> None:
    before, after = Schedule(1000, 10), Schedule(1500, 10)
    assert describe_schedule(before, after, 1000) == (
        "1,000 steps become 1,500. The learning rate was at 0.05 of its peak at step 1,000; with "
        "1,500 steps it is 0.54 at step 1,001: it rises 10.4x. Momentum goes from 0.90 to 0.94; "
        "weight decay goes from 0.00 to 0.25 of its start. The loss usually rises first: a public "
        "run went from 0.935 to 1.016 bits per byte through this."
    )
    assert describe_schedule(before, after, 300) == (
        "1,000 steps become 1,500. This costs nothing: the learning rate has not begun to fall. It "
        "does from step 527 on, not from step 352. Only weight decay goes from 0.80 to 0.90 of its "
        "start."
    )
    assert after.learning_rate(525) == 1.0 > after.learning_rate(526)  # steps 526 and 527
    early = describe_schedule(before, after, 5)
    assert early.endswith("It does from step 527 on, not from step 352.")  # weight decay 1.00
    assert describe_schedule(Schedule(1, 0), Schedule(2, 0), 0).startswith("1 step becomes 2.")
    assert describe_schedule(before, after, 0).endswith(
        "Nothing has been trained yet: it costs nothing."
    )
    assert "it goes on falling" in describe_schedule(before, Schedule(1001, 10), 452)
