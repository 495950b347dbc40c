"""Calibration: which trainings correct the planner's estimates, and which do not."""

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
from launcher.runs.folder import RunFolder
from launcher.runs.json_lines import JsonLinesWriter, read_last_json_lines
from launcher.runs.record import write_json


def write_run(path: Path, seconds: float, **spec: Any) -> RunFolder:
    folder = RunFolder(path)
    path.mkdir(parents=True)
    content = {
        "recipe": "d8",
        "steps": 12,
        "created": time.time(),
        "cluster": "home",
        "device": "cpu",
        "settings": D8.model_dump(mode="json"),
        "nodes": [{"name": "one", "share": 1.0}],
    }
    write_json(folder.spec_file, content | spec)
    with JsonLinesWriter(folder.metrics) as metrics:
        for step in range(1, 13):
            slow = 5.0 if step <= 3 else 1.0  # the first ones touch their memory
            metrics.write({"step": step, "attempt": 0, "loss": 5.0, "step_seconds": slow * seconds})
    return folder


def pair_run(path: Path, recipe: Recipe, seconds: float) -> RunFolder:
    """With equal shares."""
    return write_run(
        path, seconds,
        nodes=[{"name": name, "share": 1.0} for name in ("one", "two")],
        settings=recipe.model_copy(update={"workers": 2}).model_dump(mode="json"),
    )  # fmt: skip


def test_a_run_corrects_the_estimate_of_its_step(tmp_path: Path) -> None:
    predicted = estimate_run(D8, one())
    assert predicted is not None
    took = 1.3 * predicted.step.seconds
    calibration = Calibration([write_run(tmp_path / "d8-1", took)])
    found = make_plan("d8", D8, one(), {}, calibration)
    assert found is not None
    assert found.estimate.step.seconds == pytest.approx(took, rel=1e-3)
    assert found.estimate.spread == 1.1
    assert found.estimate.basis_text == "measured 2026-11-27; corrected by run d8-1"
    other = D8.model_copy(update={"depth": 4})
    correction = calibration.correction_for(one(), other)
    assert correction.factor == pytest.approx(1.3, rel=1e-3) and not correction.same_depth


def test_a_run_that_waited_for_the_network_corrects_only_the_same_step(tmp_path: Path) -> None:
    def factors(link_bytes_per_second: float) -> list[float]:
        hardware = two(bytes_per_second=link_bytes_per_second)
        plain = plan(D8, hardware).estimate
        folder = tmp_path / f"{link_bytes_per_second:.0f}" / "d8-1"
        run = pair_run(folder, D8, 1.3 * plain.step.seconds)
        others = [{}, {"tokens_per_step": 8192}, {"depth": 4}]
        calibration = Calibration([run])
        return [
            calibration.correction_for(hardware, D8.model_copy(update=changes)).factor
            for changes in others
        ]

    same, *others = factors(30e6)
    assert same > 1.3 and others == [1.0, 1.0]
    assert all(factor > 1.25 for factor in factors(1e9))
    assert factors(20e6) == [1.0, 1.0, 1.0]


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
def test_other_runs_correct_nothing(tmp_path: Path, other: dict[str, Any]) -> None:
    calibration = Calibration([write_run(tmp_path / "d8-1", 20.0, **other)])
    assert calibration.correction_for(one(), D8).factor == 1.0
    calibration = Calibration([write_run(tmp_path / "d8-2", 20.0)])
    assert calibration.correction_for(one(), D8).factor > 1.0


def test_runs_before_the_measurement_correct_nothing(tmp_path: Path) -> None:
    measured = measurement(one=host_speed())
    later = measured.model_copy(update={"measured_at": time.time() + 10})
    run = write_run(tmp_path / "d8-1", 20.0)
    for found, corrects in ((measured, True), (later, False)):
        correction = Calibration([run]).correction_for(replace(one(), measurement=found), D8)
        assert (correction.factor > 1.0) == corrects


def test_an_implausible_run_corrects_nothing(tmp_path: Path) -> None:
    predicted = estimate_run(D8, one())
    assert predicted is not None
    for times in (0.1, 3.0):
        run = write_run(tmp_path / f"{times}", times * predicted.step.seconds)
        assert Calibration([run]).correction_for(one(), D8).factor == 1.0


def test_runs_of_all_hosts_correct_each_host_alone(tmp_path: Path) -> None:
    recipe = D8.model_copy(update={"tokens_per_step": 32_768})
    plain = plan(recipe, two())
    run = pair_run(tmp_path / "d8-1", recipe, 1.5 * plain.estimate.step.seconds)
    corrected = make_plan("d8", recipe, two(), {}, Calibration([run]))
    assert corrected is not None
    for before, after in zip(plain.of_kind("host"), corrected.of_kind("host"), strict=True):
        slower = before.estimate.tokens_per_second / after.estimate.tokens_per_second
        assert slower == pytest.approx(1.5, rel=0.1)


def test_what_a_slow_network_cost_is_not_charged_to_one_host(tmp_path: Path) -> None:
    hardware = two(bytes_per_second=30e6)
    plain = plan(D8, hardware)
    took = 1.3 * plain.estimate.step.seconds
    run = pair_run(tmp_path / "d8-1", D8, took)
    corrected = make_plan("d8", D8, hardware, {}, Calibration([run]))
    assert corrected is not None
    assert corrected.estimate.step.seconds == pytest.approx(took, rel=1e-3)
    assert [host.estimate.step for host in corrected.of_kind("host")] == [
        host.estimate.step for host in plain.of_kind("host")
    ]


def test_the_end_of_a_long_run_is_read_and_no_more(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert read_last_json_lines(file, 100) == []
    file.write_text("".join(f'{{"step": {step}}}\n' for step in range(100)) + '{"step": 1')
    assert [record["step"] for record in read_last_json_lines(file, 50)] == [97, 98, 99]
    assert len(read_last_json_lines(file, 10_000)) == 100
