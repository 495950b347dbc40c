"""What trainings teach the planner, and what they do not."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from speeds import D8, host_speed, measurement, one, plan, two

from launcher.config.recipe import Recipe
from launcher.planner.calibration import Calibration
from launcher.planner.estimate import estimate_run
from launcher.planner.run_plan import make_plan
from launcher.runs.folder import RunFolder, write_json
from launcher.runs.records import RecordWriter, last_records


def write_run(path: Path, seconds: float, **spec: Any) -> RunFolder:
    folder = RunFolder(path)
    path.mkdir(parents=True)
    content = {
        "created": time.time(),
        "cluster": "home",
        "device": "cpu",
        "settings": D8.model_dump(mode="json"),
        "nodes": [{"name": "one", "share": 1.0}],
    }
    write_json(folder.spec_file, content | spec)
    with RecordWriter(folder.metrics) as metrics:
        for step in range(1, 13):
            slow = 5.0 if step <= 3 else 1.0  # the first ones touch their memory
            metrics.write({"step": step, "attempt": 0, "step_seconds": slow * seconds})
    return folder


def pair_run(path: Path, recipe: Recipe, seconds: float) -> RunFolder:
    """With equal shares."""
    return write_run(
        path, seconds,
        nodes=[{"name": name, "share": 1.0} for name in ("one", "two")],
        settings=recipe.model_copy(update={"workers": 2}).model_dump(mode="json"),
    )  # fmt: skip


def test_runs_teach_what_they_took(tmp_path: Path) -> None:
    predicted = estimate_run(D8, one())
    assert predicted is not None
    took = 1.3 * predicted.step.seconds
    lessons = Calibration([write_run(tmp_path / "d8-1", took)])
    found = make_plan("d8", D8, one(), {}, lessons)
    assert found is not None
    assert found.prospect.step.seconds == pytest.approx(took, rel=1e-3)
    assert found.prospect.spread == 1.1
    assert found.prospect.known_from == "measured 2026-11-27; corrected by run d8-1"
    other = D8.model_copy(update={"depth": 4})
    lesson = lessons.of(one(), other)
    assert lesson.correction == pytest.approx(1.3, rel=1e-3) and not lesson.of_this_size


def test_what_waited_for_the_network_teaches_the_same_step_alone(tmp_path: Path) -> None:
    def taught(link_bytes_per_second: float) -> list[float]:
        there = two(bytes_per_second=link_bytes_per_second)
        plain = plan(D8, there).prospect
        folder = tmp_path / f"{link_bytes_per_second:.0f}" / "d8-1"
        run = pair_run(folder, D8, 1.3 * plain.step.seconds)
        others = [{}, {"tokens_per_step": 8192}, {"depth": 4}]
        return [Calibration([run]).of(there, D8.model_copy(update=o)).correction for o in others]

    same, *others = taught(30e6)
    assert same > 1.3 and others == [1.0, 1.0]
    assert all(correction > 1.25 for correction in taught(1e9))
    assert taught(20e6) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "other",
    [
        {"cluster": "away"},
        {"device": "cuda"},
        {"nodes": [{"name": "two", "share": 1.0}]},
        {"settings": D8.model_copy(update={"elastic": True}).model_dump(mode="json")},
        {"settings": D8.model_copy(update={"workers": 2}).model_dump(mode="json")},
        {"settings": {"depth": 8, "of_another_version": 1}},
    ],
)
def test_other_runs_teach_nothing(tmp_path: Path, other: dict[str, Any]) -> None:
    lessons = Calibration([write_run(tmp_path / "d8-1", 20.0, **other)])
    assert lessons.of(one(), D8).correction == 1.0
    assert Calibration([write_run(tmp_path / "d8-2", 20.0)]).of(one(), D8).correction > 1.0


def test_runs_before_the_measurement_teach_nothing(tmp_path: Path) -> None:
    there = replace(one(), measurement=measurement(one=host_speed()))
    later = there.measurement.model_copy(update={"measured_at": time.time() + 10})  # type: ignore[union-attr]
    run = write_run(tmp_path / "d8-1", 20.0)
    assert Calibration([run]).of(replace(there, measurement=later), D8).correction == 1.0
    assert Calibration([run]).of(there, D8).correction > 1.0


def test_a_run_beyond_belief_teaches_nothing(tmp_path: Path) -> None:
    predicted = estimate_run(D8, one())
    assert predicted is not None
    for times in (0.1, 3.0):
        run = write_run(tmp_path / f"{times}", times * predicted.step.seconds)
        assert Calibration([run]).of(one(), D8).correction == 1.0


def test_what_runs_of_all_hosts_teach_counts_for_each_alone(tmp_path: Path) -> None:
    recipe = D8.model_copy(update={"tokens_per_step": 32_768})
    there, plain = two(), plan(recipe, two())
    run = pair_run(tmp_path / "d8-1", recipe, 1.5 * plain.prospect.step.seconds)
    taught = make_plan("d8", recipe, there, {}, Calibration([run]))
    assert taught is not None
    for before, after in zip(plain.of("host"), taught.of("host"), strict=True):
        slower = before.prospect.tokens_per_second / after.prospect.tokens_per_second
        assert slower == pytest.approx(1.5, rel=0.1)


def test_what_a_slow_network_taught_is_not_charged_to_one_host(tmp_path: Path) -> None:
    there = two(bytes_per_second=30e6)
    plain = plan(D8, there)
    took = 1.3 * plain.prospect.step.seconds
    run = pair_run(tmp_path / "d8-1", D8, took)
    taught = make_plan("d8", D8, there, {}, Calibration([run]))
    assert taught is not None
    assert taught.prospect.step.seconds == pytest.approx(took, rel=1e-3)
    assert [a.prospect.step for a in taught.of("host")] == [
        a.prospect.step for a in plain.of("host")
    ]


def test_the_end_of_a_long_run_is_read_and_no_more(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert last_records(file, 100) == []
    file.write_text("".join(f'{{"step": {step}}}\n' for step in range(100)) + '{"step": 1')
    assert [record["step"] for record in last_records(file, 50)] == [97, 98, 99]
    assert len(last_records(file, 10_000)) == 100
