"""Plans: do they fit, what is slow, what is better, and the sentence that says so."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from speeds import D8, GIGA, hardware_of, host_speed, machine, measurement, one, plan, two

from launcher.planner.calibration import Calibration
from launcher.planner.estimate import estimate_run
from launcher.planner.run_plan import make_plan
from launcher.planner.verdict import verdict

FAST = machine("gpu", host_speed(50_000.0), accelerator="cuda")


def test_worth_it() -> None:
    found = plan(D8, one())
    assert found.estimate.fits
    assert verdict(found) == "worth it: 4 h 30 min for the whole horizon"
    assert found.estimate.hours == pytest.approx(
        (1000 * found.estimate.step.seconds + 4.125 * found.estimate.evaluation_seconds) / 3600,
        rel=0.001,  # and the copies for checkpoints
    )


def test_what_does_not_fit_says_what_would() -> None:
    found = plan(D8, one(memory_bytes=3 * GIGA))
    assert not found.estimate.fits
    message = verdict(found)
    assert message.startswith("does not fit: one needs 4.63 GB") and "of 3 GB memory" in message
    assert "what would: d4, " in message


def test_a_disk_without_room_for_checkpoints_does_not_fit() -> None:
    found = plan(D8, one(disk_free_bytes=2 * GIGA))
    assert not found.estimate.fits
    assert "one has 2 GB of disk left" in verdict(found)


def test_too_long_to_be_worth_it() -> None:
    found = plan(D8.model_copy(update={"steps": 200_000}), one())
    assert verdict(found).startswith("not worth it here: ")
    assert "4 h 30 min for 1,000 steps; d4, trained as long for its size, takes" in verdict(found)


def test_another_pool_that_is_much_faster() -> None:
    found = plan(D8, one(), {"--pool gpus": hardware_of(FAST)})
    assert verdict(found).startswith("use a CPU instead (--pool gpus): ")
    assert "against 4 h 30 min" in verdict(found)
    kinds = [alternative.kind for alternative in found.alternatives]
    assert kinds == ["pool", "tokens_per_step", "size"]


def test_two_that_are_slower_than_one_say_why() -> None:
    found = plan(D8, two(bytes_per_second=8e6))
    message = verdict(found)
    assert message.startswith("one alone is faster: ")
    assert "175 MB of gradients a step take 22 s" in message
    assert "with 32,768 tokens a step (--set tokens_per_step=32768 --steps 125) all make" in message
    assert "network" in found.estimate.bottleneck


def test_two_that_wait_for_the_slow_one() -> None:
    found = plan(D8, two(gflops=20.0))
    assert "one waits" in verdict(found) and verdict(found).split(";")[0].endswith("for two")
    assert found.estimate.step.slowest == "two"


def test_equal_rows_of_unmeasured_hosts_are_compared_with_shares() -> None:
    machines = [replace(machine, measured=False) for machine in two(gflops=50.0).machines]
    found = plan(D8.model_copy(update={"tokens_per_step": 32_768}), hardware_of(*machines))
    assert found.estimate.basis == "estimate" and found.estimate.spread == 2.0
    [balanced] = found.of_kind("shares")
    assert balanced.options == "launch measure --cluster home"
    assert balanced.estimate.tokens_per_second > 1.2 * found.estimate.tokens_per_second


def test_a_measurement_splits_rows_by_speed() -> None:
    hardware = two(gflops=50.0)
    speeds = {machine.name: machine.speed for machine in hardware.machines}
    hardware = replace(hardware, measurement=measurement(**speeds))
    recipe = D8.model_copy(update={"tokens_per_step": 32_768})
    rows = [load.rows for load in estimate_run(recipe, hardware).ranks]  # type: ignore[union-attr]
    assert sum(rows) == 32 and rows[0] > 20


def test_a_row_for_every_rank_or_no_plan() -> None:
    recipe = D8.model_copy(update={"tokens_per_step": 1024})
    assert make_plan("d8", recipe, two(), {}, Calibration([])) is None


def test_watts_become_energy() -> None:
    found = plan(D8, one(watts=100.0)).estimate
    assert found.kilowatt_hours == pytest.approx(0.1 * found.hours)
    assert plan(D8, two()).estimate.kilowatt_hours is None


def test_every_figure_is_in_the_json() -> None:
    from launcher.planner.plan_json import plan_as_json

    found = json.loads(json.dumps(plan_as_json(plan(D8, two()))))
    keys = {"recipe", "cluster", "fits", "hosts", "tokens_per_second", "step_seconds", "hours"}
    assert keys | {"basis", "bottleneck", "verdict", "alternatives"} <= found.keys()
    assert found["tokens_per_second"].keys() == {"low", "expected", "high"}
    assert {"name", "peak_bytes", "available_bytes", "fits"} <= found["hosts"][0].keys()
    assert sum(term["seconds"] for term in found["terms"]) == pytest.approx(
        found["step_seconds"], abs=1e-3
    )


def test_a_pass_has_no_more_rows_than_the_rank() -> None:
    whole, more = (
        plan(D8.model_copy(update={"micro_batch": rows}), two()).estimate for rows in (2, 10_000)
    )
    assert more.hosts[0].peak_bytes == whole.hosts[0].peak_bytes
    assert more.step.terms == whole.step.terms


def test_options_do_what_their_row_says() -> None:
    """Steps that the recipe writes would stay as many, and `micro_batch` is kept."""
    found = plan(D8.model_copy(update={"micro_batch": 1}), one())
    for row in found.of_kind("tokens_per_step"):
        recipe = row.estimate.recipe
        assert row.options == (
            f"--set tokens_per_step={recipe.tokens_per_step} --steps {recipe.steps}"
        )
        assert recipe.micro_batch == 1
        assert recipe.steps_total * recipe.tokens_per_step == 1000 * 4096


def test_no_room_for_a_copy_is_no_lack_of_memory() -> None:
    roomy = plan(D8, one()).estimate
    needs = roomy.hosts[0].peak_bytes
    tight = plan(D8, one(memory_bytes=needs - 1)).estimate
    assert tight.fits and tight.hosts[0].blocking_checkpoints
    assert tight.hosts[0].peak_bytes == needs - roomy.hosts[0].peak.copy
    assert tight.checkpoint_seconds == tight.last_write_seconds > roomy.checkpoint_seconds
    assert plan(D8, one(memory_bytes=tight.hosts[0].peak_bytes - 1)).estimate.fits is False


def test_evaluations_are_those_of_training() -> None:
    found = plan(D8, one()).estimate
    one_step = found.seconds_of(1) - found.step.seconds - found.last_write_seconds
    assert one_step == pytest.approx(1.125 * found.evaluation_seconds, rel=0.01)


def test_whether_it_fits_is_unknown_without_the_memory() -> None:
    hardware = one()
    unknown = replace(hardware, machines=(replace(hardware.machines[0], memory_bytes=None),))
    assert plan(D8, unknown).estimate.fits is None
    full = replace(hardware.machines[0], memory_bytes=None, disk_free_bytes=1)
    assert plan(D8, replace(hardware, machines=(full,))).estimate.fits is False
