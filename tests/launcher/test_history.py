"""`launch plot` and `launch runs compare` on folders of runs: what is drawn and what is said."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click import UsageError
from click.testing import CliRunner
from records import append_events, append_metrics, make_folder, make_metric

from launcher.cli.main import cli
from launcher.config.recipe import load_recipe
from launcher.errors import InputError, MissingExtra
from launcher.runs.events import EvaluateEvent
from launcher.runs.folder import RunFolder, runs_home
from launcher.runs.history import RunHistory, moving_average
from launcher.runs.spec import RunData

TOKENS_PER_STEP = 2048
RESTARTED = [*range(1, 61), *range(51, 101)]  # killed after step 60, saved at 50


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_run(name: str, steps: list[int], *, seconds: float, settings: dict[str, Any]) -> RunFolder:
    """A run's folder as a driver leaves it, with an evaluation every 20 steps."""
    overrides = [("--set", f"{key}={value}") for key, value in settings.items()]
    recipe = load_recipe("d4", [("--steps", "100"), *overrides]).recipe
    folder = make_folder(
        runs_home() / name, created=time.time(), steps=100, versions={"torch": "2.13.0"},
        settings=recipe.model_dump(mode="json"),
        data=RunData(folder="/data/0123", identity={"data": "0123456789abcdef" * 4}),
    )  # fmt: skip
    attempt, metrics = 0, []
    for before, step in zip([0, *steps], steps, strict=False):
        attempt += step <= before
        evaluation = {"val_bpb": 3.2 - step / 50} if step % 20 == 0 else {}
        metric = make_metric(
            step, attempt=attempt, tokens=step * TOKENS_PER_STEP, lr=1.0, wire_bytes=0,
            loss=10 * math.exp(-step / 50) + 0.1 * attempt, step_seconds=seconds,
            tokens_per_second=TOKENS_PER_STEP / seconds, **evaluation,
        )  # fmt: skip
        metrics.append(metric)
    append_metrics(folder, *metrics)
    append_events(folder, EvaluateEvent.now(step=0, val_bpb=3.2))
    return folder


@pytest.fixture
def runs(home: Path) -> list[str]:
    make_run("quiet", list(range(1, 81)), seconds=1.8, settings={})
    make_run("restarted", RESTARTED, seconds=3.6, settings={"seed": 7, "data.source": "files:a"})
    return ["quiet", "restarted"]


def launch(*arguments: str) -> str:
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False, standalone_mode=False)
    assert result.exception is None, result.output
    return result.stdout


def test_a_curve_has_each_step_once_and_the_time_of_all(runs: list[str]) -> None:
    curve = RunHistory.of(RunFolder(runs_home() / "restarted"), "restarted")
    assert curve.tokens == [step * TOKENS_PER_STEP for step in range(1, 101)]
    assert curve.loss[49] == pytest.approx(10 * math.exp(-50 / 50))
    assert curve.loss[50] == pytest.approx(10 * math.exp(-51 / 50) + 0.1)  # of the second attempt
    assert curve.hours[49] == pytest.approx(50 * 3.6 / 3600)
    assert curve.hours[50] == pytest.approx(61 * 3.6 / 3600)  # behind ten steps that were lost
    assert curve.hours[99] == pytest.approx(110 * 3.6 / 3600)
    assert curve.restart_hours == [pytest.approx(60 * 3.6 / 3600)]
    [lost] = curve.replayed_spans  # the ten steps that were made again
    assert lost == (pytest.approx(50 * 3.6 / 3600), pytest.approx(60 * 3.6 / 3600))
    assert curve.evaluated_tokens == [step * TOKENS_PER_STEP for step in range(0, 101, 20)]
    assert curve.val_bpb == pytest.approx([3.2, 2.8, 2.4, 2.0, 1.6, 1.2])
    assert curve.evaluated_hours[3] == pytest.approx(70 * 3.6 / 3600)


def test_the_mean_line_is_over_the_steps_before() -> None:
    assert moving_average([1, 2, 3, 4], 2) == [1, 1.5, 2.5, 3.5]
    assert moving_average([1, 2, 3], 1) == [1, 2, 3]
    assert moving_average([], 5) == []


def test_plots_are_pictures_of_every_run(runs: list[str], tmp_path: Path) -> None:
    assert launch("plot", *runs) == "quiet-restarted.png\n"
    png = (tmp_path / "quiet-restarted.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    document = json.loads(launch("plot", *runs, "-o", "both.svg", "--json"))
    assert document == {"file": "both.svg", "runs": runs}
    svg = (tmp_path / "both.svg").read_bytes()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    launch("plot", *runs, "-o", "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == svg


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("quiet", "-o", "a.gif"), "cannot draw this kind of file"),
        (("quiet", "-o", "nowhere/a.png"), "nowhere: no such folder"),
        (("quite",), "no run 'quite' is known here"),
        (("empty",), "run 'empty' has made no step yet"),
    ],
)
def test_what_cannot_be_drawn_is_said(
    runs: list[str], tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    make_run("empty", [], seconds=1, settings={}).metrics.write_text("")
    with pytest.raises(InputError, match=says):
        launch("plot", *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_without_matplotlib_the_extra_is_named(
    runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match="needs matplotlib") as caught:
        launch("plot", "quiet")
    assert "[plot]" in str(caught.value.fix)


def test_compared_runs_stand_side_by_side_at_equal_tokens(runs: list[str]) -> None:
    document = json.loads(launch("runs", "compare", *runs, "--json"))
    assert document["runs"] == runs
    figures = document["figures"]
    assert figures["steps"] == [80, 100]
    assert figures["restarts"] == [0, 1]
    assert figures["hours"] == [pytest.approx(80 * 1.8 / 3600, abs=1e-4), 0.11]
    assert figures["val_bpb at 163,840 tokens"] == pytest.approx([1.6, 1.6])
    ours = [10 * math.exp(-step / 50) for step in range(61, 81)]
    assert figures["loss at 163,840 tokens"] == pytest.approx(
        [sum(ours) / 20, sum(ours) / 20 + 0.1]
    )
    assert document["differences"] == {
        "seed": [42, 7],
        "data.source": ["embedded", "files:a"],
    }
    assert document["warnings"] == []
    table = launch("runs", "compare", *runs)
    assert "loss at 163,840 tokens, mean of 20 steps" in table and "data.source" in table
    assert "versions" not in table


def test_runs_that_were_set_alike_are_said_to_be(home: Path) -> None:
    for name in ("one", "two"):
        make_run(name, [1, 2], seconds=1, settings={})
    assert "set alike" in launch("runs", "compare", "one", "two")
    with pytest.raises(InputError, match="a comparison needs two runs"):
        launch("runs", "compare", "one")


def test_figures_that_cannot_be_compared_are_said_to_be(runs: list[str]) -> None:
    folder = RunFolder(runs_home() / "quiet")
    data = folder.spec().data
    assert data is not None
    identity = {**data.identity, "data.validation": "a", "tokenizer": "b"}
    folder.update_spec(data=RunData(folder=data.folder, identity=identity))
    document = json.loads(launch("runs", "compare", *runs, "--json"))
    assert document["warnings"] == [
        "their bits per byte are of different validation texts",
        "their losses are per token of different tokenizers",
    ]


def test_options_before_compare_are_not_dropped_in_silence(runs: list[str]) -> None:
    with pytest.raises(UsageError, match="stand behind it"):
        launch("runs", "--json", "compare", *runs)


def test_a_runs_name_for_a_command_is_told_what_shows_it(runs: list[str]) -> None:
    with pytest.raises(UsageError, match="how a run went: launch logs quiet"):
        launch("runs", "quiet")


def test_many_runs_make_a_short_name(home: Path) -> None:
    names = [f"{letter * 60}" for letter in "abcde"]
    for name in names:
        make_run(name, [1, 2], seconds=1, settings={})
    assert launch("plot", *names) == f"{names[0]}-and-4-more.png\n"


def test_the_list_of_runs_is_still_there(runs: list[str]) -> None:
    assert [row["run"] for row in json.loads(launch("runs", "--json"))] == runs
