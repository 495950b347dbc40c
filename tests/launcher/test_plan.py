"""Plans: do they fit, what is slow, what is better, and the sentence that says so."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from speeds import GIGA, LINK, host_speed, machine, measurement, site

from launcher.config.recipe import Recipe
from launcher.guide.lessons import Lessons
from launcher.guide.machines import Site, this_machine
from launcher.guide.measurement import Measurement
from launcher.guide.plan import Plan, make_plan
from launcher.guide.prospect import foresee
from launcher.guide.verdict import verdict
from launcher.hosts.gpus import Gpu, GpuFacts
from launcher.runs.folder import RunFolder, write_json
from launcher.runs.records import RecordWriter, last_records

D8 = Recipe(depth=8, sequence_length=1024, tokens_per_step=4096, steps=1000)
FAST = replace(machine("gpu", host_speed(50_000.0)), accelerator="cuda")
NOTHING = Lessons([])


def plan(recipe: Recipe, there: Site, others: dict[str, Site] | None = None) -> Plan:
    found = make_plan("d8", recipe, there, others or {}, NOTHING)
    assert found is not None
    return found


def one(**changes: Any) -> Site:
    return site(machine("one", host_speed(), **changes))


def two(gflops: float = 100.0, **link: float) -> Site:
    machines = (machine("one", host_speed()), machine("two", host_speed(gflops)))
    return site(*machines, link=LINK.model_copy(update=link))


def test_worth_it() -> None:
    found = plan(D8, one())
    assert found.prospect.fits
    assert verdict(found) == "worth it: 4 h 30 min for the whole horizon"
    assert found.prospect.hours == pytest.approx(
        (1000 * found.prospect.step.seconds + 4.125 * found.prospect.evaluation_seconds) / 3600,
        rel=0.001,  # and the copies for checkpoints
    )


def test_what_does_not_fit_says_what_would() -> None:
    found = plan(D8, one(memory_bytes=3 * GIGA))
    assert not found.prospect.fits
    words = verdict(found)
    assert words.startswith("does not fit: one needs 5.4") and "of 3 GB memory" in words
    assert "what would: d4, " in words


def test_a_disk_without_room_for_checkpoints_does_not_fit() -> None:
    found = plan(D8, one(disk_free_bytes=2 * GIGA))
    assert not found.prospect.fits
    assert "one has 2 GB of disk left" in verdict(found)


def test_too_long_to_be_worth_it() -> None:
    found = plan(D8.model_copy(update={"steps": 200_000}), one())
    assert verdict(found).startswith("not worth it here: ")
    assert "4 h 30 min for 1,000 steps; d4, trained as long for its size, takes" in verdict(found)


def test_another_pool_that_is_much_faster() -> None:
    found = plan(D8, one(), {"--pool gpus": site(FAST)})
    assert verdict(found).startswith("use a CPU instead (--pool gpus): ")
    assert "against 4 h 30 min" in verdict(found)
    assert [each.kind for each in found.alternatives] == ["pool", "tokens_per_step", "size"]


def test_two_that_are_slower_than_one_say_why() -> None:
    found = plan(D8, two(bytes_per_second=8e6))
    words = verdict(found)
    assert words.startswith("one alone is faster: ")
    assert "175 MB of gradients a step take 22 s" in words
    assert "with 32,768 tokens a step (--set tokens_per_step=32768) all make" in words
    assert "network" in found.prospect.bottleneck


def test_two_that_wait_for_the_slow_one() -> None:
    found = plan(D8, two(gflops=20.0))
    assert "the others wait" in verdict(found) and verdict(found).split(";")[0].endswith("for two")
    assert found.prospect.step.slowest == "two"


def test_equal_rows_of_unmeasured_hosts_are_compared_with_shares() -> None:
    machines = [replace(each, measured=False) for each in two(gflops=50.0).machines]
    found = plan(D8.model_copy(update={"tokens_per_step": 32_768}), site(*machines))
    assert found.prospect.basis == "estimate" and found.prospect.spread == 2.0
    [balanced] = found.of("shares")
    assert balanced.options == "launch measure --cluster home"
    assert balanced.prospect.tokens_per_second > 1.2 * found.prospect.tokens_per_second


def test_a_measurement_deals_rows_by_speed() -> None:
    there = two(gflops=50.0)
    speeds = {each.name: each.speed for each in there.machines}
    there = replace(there, measurement=measurement(**speeds))
    recipe = D8.model_copy(update={"tokens_per_step": 32_768})
    rows = [load.rows for load in foresee(recipe, there).ranks]  # type: ignore[union-attr]
    assert sum(rows) == 32 and rows[0] > 20


def test_a_row_for_every_rank_or_no_plan() -> None:
    recipe = D8.model_copy(update={"tokens_per_step": 1024})
    assert make_plan("d8", recipe, two(), {}, NOTHING) is None


def test_watts_become_energy() -> None:
    found = plan(D8, one(watts=100.0)).prospect
    assert found.kilowatt_hours == pytest.approx(0.1 * found.hours)
    assert plan(D8, two()).prospect.kilowatt_hours is None


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


def test_runs_teach_what_they_took(tmp_path: Path) -> None:
    predicted = foresee(D8, one())
    assert predicted is not None
    took = 1.3 * predicted.step.seconds
    lessons = Lessons([write_run(tmp_path / "d8-1", took)])
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
        nodes = [{"name": name, "share": 1.0} for name in ("one", "two")]
        settings = D8.model_copy(update={"workers": 2}).model_dump(mode="json")
        folder = tmp_path / f"{link_bytes_per_second:.0f}" / "d8-1"
        run = write_run(folder, 1.3 * plain.step.seconds, nodes=nodes, settings=settings)
        others = [{}, {"tokens_per_step": 8192}, {"depth": 4}]
        return [Lessons([run]).of(there, D8.model_copy(update=o)).correction for o in others]

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
    lessons = Lessons([write_run(tmp_path / "d8-1", 20.0, **other)])
    assert lessons.of(one(), D8).correction == 1.0
    assert Lessons([write_run(tmp_path / "d8-2", 20.0)]).of(one(), D8).correction > 1.0


def test_runs_before_the_measurement_teach_nothing(tmp_path: Path) -> None:
    there = replace(one(), measurement=measurement(one=host_speed()))
    later = there.measurement.model_copy(update={"measured_at": time.time() + 10})  # type: ignore[union-attr]
    run = write_run(tmp_path / "d8-1", 20.0)
    assert Lessons([run]).of(replace(there, measurement=later), D8).correction == 1.0
    assert Lessons([run]).of(there, D8).correction > 1.0


def test_every_figure_is_in_the_json() -> None:
    from launcher.cli.plan import document

    found = json.loads(json.dumps(document(plan(D8, two()))))
    keys = {"recipe", "cluster", "fits", "hosts", "tokens_per_second", "step_seconds", "hours"}
    assert keys | {"basis", "bottleneck", "verdict", "alternatives"} <= found.keys()
    assert found["tokens_per_second"].keys() == {"low", "expected", "high"}
    assert {"name", "peak_bytes", "available_bytes", "fits"} <= found["hosts"][0].keys()
    assert sum(term["seconds"] for term in found["terms"]) == pytest.approx(
        found["step_seconds"], abs=1e-3
    )


def test_a_pass_has_no_more_rows_than_the_rank() -> None:
    whole, more = (
        plan(D8.model_copy(update={"micro_batch": rows}), two()).prospect for rows in (2, 10_000)
    )
    assert more.hosts[0].peak_bytes == whole.hosts[0].peak_bytes
    assert more.step.terms == whole.step.terms


def test_workers_share_the_cores_of_an_unmeasured_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr("launcher.guide.machines.gpus_here", GpuFacts)
    one, four = (this_machine(None, workers).machines[0].speed for workers in (1, 4))
    assert four.threads == 2
    assert four.widths[512].products == pytest.approx(one.widths[512].products / 4)
    assert four.memory_bytes_per_second == one.memory_bytes_per_second / 4


def test_a_run_beyond_belief_teaches_nothing(tmp_path: Path) -> None:
    predicted = foresee(D8, one())
    assert predicted is not None
    for times in (0.1, 3.0):
        run = write_run(tmp_path / f"{times}", times * predicted.step.seconds)
        assert Lessons([run]).of(one(), D8).correction == 1.0


def test_what_runs_of_all_hosts_teach_counts_for_each_alone(tmp_path: Path) -> None:
    recipe = D8.model_copy(update={"tokens_per_step": 32_768})
    there, plain = two(), plan(recipe, two())
    shares = [{"name": name, "share": 1.0} for name in ("one", "two")]
    settings = recipe.model_copy(update={"workers": 2}).model_dump(mode="json")
    took = 1.5 * plain.prospect.step.seconds
    run = write_run(tmp_path / "d8-1", took, nodes=shares, settings=settings)
    taught = make_plan("d8", recipe, there, {}, Lessons([run]))
    assert taught is not None
    for before, after in zip(plain.of("host"), taught.of("host"), strict=True):
        slower = before.prospect.tokens_per_second / after.prospect.tokens_per_second
        assert slower == pytest.approx(1.5, rel=0.1)


def test_evaluations_are_those_of_training() -> None:
    found = plan(D8, one()).prospect
    one_step = found.seconds_of(1) - found.step.seconds - found.last_write_seconds
    assert one_step == pytest.approx(1.125 * found.evaluation_seconds, rel=0.01)


def test_whether_it_fits_is_unknown_where_nobody_has_said_the_memory() -> None:
    here = one()
    unknown = replace(here, machines=(replace(here.machines[0], memory_bytes=None),))
    assert plan(D8, unknown).prospect.fits is None
    full = replace(here.machines[0], memory_bytes=None, disk_free_bytes=1)
    assert plan(D8, replace(here, machines=(full,))).prospect.fits is False


def test_the_end_of_a_long_run_is_read_and_no_more(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert last_records(file, 100) == []
    file.write_text("".join(f'{{"step": {step}}}\n' for step in range(100)) + '{"step": 1')
    assert [record["step"] for record in last_records(file, 50)] == [97, 98, 99]
    assert len(last_records(file, 10_000)) == 100


@pytest.mark.parametrize(
    ("build", "counts"), [("2.13.0+cpu", True), ("2.13.0+cu130", False)], ids=["same", "another"]
)
def test_what_a_torch_for_cpus_measured_is_nothing_of_the_gpu(
    monkeypatch: pytest.MonkeyPatch, build: str, counts: bool
) -> None:
    gpu = Gpu(
        vendor="nvidia", name="NVIDIA GeForce RTX 4070", memory_bytes=12 * GIGA,
        memory_used_bytes=0, driver="580.95", architecture="8.9",
    )  # fmt: skip
    monkeypatch.setattr("launcher.guide.machines.gpus_here", lambda: GpuFacts(gpus=(gpu,)))
    monkeypatch.setattr("launcher.guide.machines.torch_here", lambda: build)
    measured = Measurement(
        cluster="local", measured_at=0.0, device="cpu", dtype="float32",
        versions={"torch": "2.13.0+cpu"}, hosts={"": host_speed()}, links={},
    )  # fmt: skip
    here = this_machine(measured, 1)
    assert here.measured is counts
    assert here.machines[0].device == ("cpu" if counts else "cuda")
