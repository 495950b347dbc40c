"""Tuning: the settings that a measurement chooses for a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from launcher.config.recipe import Recipe
from launcher.planner.measurement import (
    HostSpeed,
    Measurement,
    WidthRates,
    load_measurement,
    measurement_file,
    save_measurement,
)
from launcher.planner.step_time import token_seconds, update_seconds
from launcher.planner.tuning import (
    apply_tuning,
    balanced_rows,
    tune,
    tune_local_run,
)
from launcher.runs.node import RunNode
from launcher.runs.spec import RunSpec, Tuning
from nanochat.batch_split import split_rows
from nanochat.sizes import ModelConfig, flops_per_token, muon_flops

D4 = ModelConfig(depth=4, head_dim=64, sequence_length=512)


def host(gflops: float, **changes: Any) -> HostSpeed:
    """One rate for all parts of d4 and d8."""
    rates = dict.fromkeys(("products", "attention", "head", "muon"), gflops * 1e9)
    options: dict[str, Any] = {
        "processor": "a CPU",
        "threads": 16,
        "thread_rates": {8: gflops * 0.8e9, 16: gflops * 1e9, 24: gflops * 0.9e9},
        "why_threads": f"16 of 24: {gflops:g} GFLOP/s; 24 give {gflops * 0.9:g}",
        "widths": {256: WidthRates(**rates), 512: WidthRates(**rates)},
        "memory_bytes_per_second": 20e9,
        "adamw_bytes_per_second": 20e9,
        "disk_bytes_per_second": 200e6,
        "resident_bytes": 500_000_000,
        "pass_tokens": 2048,
    }
    return HostSpeed(**{**options, **changes})


def measured(hosts: Mapping[str, HostSpeed], **changes: Any) -> Measurement:
    options: dict[str, Any] = {
        "cluster": "pair",
        "measured_at": 1_795_800_000.0,
        "device": "cpu",
        "dtype": "float32",
        "versions": {"torch": "2.13.0+cpu", "launch": "0.1.0"},
        "hosts": hosts,
        "links": {},
    }
    return Measurement(**{**options, **changes})


def recipe(**changes: Any) -> Recipe:
    options: dict[str, Any] = {
        "depth": 4, "head_dim": 64, "sequence_length": 512, "tokens_per_step": 16_384, "steps": 10,
    }  # fmt: skip
    return Recipe(**{**options, **changes})


def tuned(
    measurement: Measurement | None,
    *nodes: RunNode,
    of: Recipe | None = None,
    shares: Mapping[str, float] | None = None,
    **changes: Any,
) -> Tuning:
    """`shares`: as a cluster file states them."""
    options: dict[str, Any] = {"device": "cpu", "torch_version": "2.13.0", **changes}
    return tune(of or recipe(), measurement, nodes, shares or {}, **options)


def spec_of(settings: dict[str, Any]) -> RunSpec:
    return RunSpec(recipe_name="d4", cluster="pair", created=1.0, steps=10, settings=settings)


LOCAL = RunNode(name="")
PAIR = (RunNode(name="one"), RunNode(name="two"))


def test_nothing_measured_nothing_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path))
    assert tuned(None, LOCAL) == tune_local_run(recipe()) == Tuning()
    spec = spec_of({"depth": 4})
    assert apply_tuning(spec, Tuning()) == spec
    assert spec.tuning == Tuning() and "chosen" not in spec.as_json()


def test_what_was_measured_of_other_devices_is_left_alone() -> None:
    assert tuned(measured({"": host(100)}), LOCAL, device="cuda") == Tuning()


def test_threads_are_the_best_number() -> None:
    found = tuned(measured({"": host(412)}), LOCAL)
    assert found.threads == {"": 16} and not found.cpus and not found.shares
    assert found.reasons["threads"].startswith(
        "16 of 24: 412 GFLOP/s; 24 give 370.8; measured 2026-11-2"
    )


def test_workers_that_share_a_machine_share_its_cores() -> None:
    found = tuned(measured({"": host(412)}), RunNode(name="", ranks_per_node=2))
    assert not found.threads and "threads" not in found.reasons


def test_fewer_cpus_in_the_file_win() -> None:
    speed = host(100, cpus=(0, 2, 4, 6), threads=4, thread_rates={4: 1e11})
    found = tuned(measured({"one": speed}), RunNode(name="one", cpus=3))
    assert found.threads == {"one": 3} and found.cpus == {"one": (0, 2, 4)}
    assert found.reasons["threads"].startswith("one: 3: the cluster file says so")
    more = tuned(measured({"one": speed}), RunNode(name="one", cpus=12))
    assert more.threads == {"one": 4} and more.cpus == {"one": (0, 2, 4, 6)}


def test_all_are_done_at_once() -> None:
    speeds = [host(100), host(25), host(50)]
    rows = balanced_rows(D4, 64, speeds, [1, 1, 1], "float32")
    assert rows is not None and sum(rows) == pytest.approx(64)
    seconds = [
        count * 512 * token_seconds(D4, speed) + sum(update_seconds(D4, speed, "float32"))
        for count, speed in zip(rows, speeds, strict=True)
    ]
    assert max(seconds) == pytest.approx(min(seconds))
    assert rows[0] > 4 * rows[1]  # the optimizer takes the slow one longer too


def test_a_host_that_is_too_slow_still_gets_a_row() -> None:
    rows = balanced_rows(D4, 8, [host(100), host(1), host(100)], [1, 1, 1], "float32")
    assert rows == pytest.approx([3.5, 1, 3.5])
    assert balanced_rows(D4, 2, [host(100)] * 3, [1, 1, 1], "float32") is None


def test_ranks_of_a_host_count_each() -> None:
    rows = balanced_rows(D4, 60, [host(100), host(100)], [2, 1], "float32")
    assert rows == pytest.approx([40, 20])


def test_shares_follow_speed() -> None:
    found = tuned(measured({"one": host(300), "two": host(100)}), *PAIR)
    split = split_rows(32, list(found.shares.values()))
    assert [*map(len, split)] == [24, 8]
    assert sum(found.shares.values()) == pytest.approx(2, abs=0.01)
    assert all(
        len(f"{share:g}".replace(".", "").lstrip("0")) <= 3 for share in found.shares.values()
    )
    assert found.reasons["shares"].startswith(
        "one 24, two 8 of the 32 rows of a step: done at once"
    )


def test_equal_rows_need_no_shares() -> None:
    found = tuned(measured({"one": host(101), "two": host(100)}), *PAIR)
    assert not found.shares and "shares" not in found.reasons


def test_written_shares_win() -> None:
    hosts = measured({"one": host(300), "two": host(100)})
    found = tuned(hosts, *PAIR, shares={"one": 1.0})
    assert not found.shares and "shares" not in found.reasons


def test_a_host_that_was_not_measured_is_named() -> None:
    found = tuned(measured({"one": host(300)}), *PAIR)
    assert not found.shares and found.micro_batch is None and found.threads == {"one": 16}
    assert found.reasons["shares"].startswith("equal: two not measured yet")


@pytest.mark.parametrize(
    ("changes", "passes", "rows"),
    [
        ({}, 2048, 4),
        ({}, 8192, 16),
        ({"tokens_per_step": 10 * 512}, 4096, 5),  # two passes of 5 rather than 8 and 2
        ({"depth": 8, "head_dim": 128, "sequence_length": 1024}, 8192, 4),  # no more than 4,096
        ({"depth": 8, "head_dim": 128, "sequence_length": 1024}, 1024, 1),
        ({"micro_batch": 2}, 2048, None),
    ],
)
def test_passes_are_as_large_as_is_fastest(
    changes: dict[str, Any], passes: int, rows: int | None
) -> None:
    speeds = measured({"": host(100, pass_tokens=passes)})
    found = tuned(speeds, LOCAL, of=recipe(**changes))
    assert found.micro_batch == rows
    assert ("passes" in found.reasons) == (rows is not None)


def test_the_slowest_passes_of_all_hosts_count() -> None:
    speeds = {"one": host(100, pass_tokens=2048), "two": host(100, pass_tokens=1024)}
    assert tuned(measured(speeds), *PAIR).micro_batch == 2
    unknown = speeds | {"two": host(100, pass_tokens=None)}
    assert tuned(measured(unknown), *PAIR).micro_batch is None


def test_other_versions_are_said() -> None:
    found = tuned(measured({"": host(100)}), LOCAL, torch_version="2.14.0")
    assert found.threads == {"": 16}
    assert found.reasons["measured"].startswith("with torch 2.13.0, this is 2.14.0")
    assert "measured" not in tuned(measured({"": host(100)}), LOCAL).reasons


def test_a_tuning_is_kept_in_run_json() -> None:
    speeds = {"one": host(300, cpus=(0, 2)), "two": host(100)}
    found = tuned(measured(speeds), *PAIR)
    spec = apply_tuning(spec_of({"depth": 4, "micro_batch": None}), found)
    assert spec.settings == {"depth": 4, "micro_batch": found.micro_batch}
    content = json.loads(json.dumps(spec.as_json()))
    assert content["chosen"].keys() == set(Tuning.model_fields)
    assert RunSpec.model_validate(content).tuning == found


def test_seconds_are_flops_over_rates() -> None:
    assert token_seconds(D4, host(100)) == pytest.approx(flops_per_token(D4) / 100e9)
    tables = 4 * 32_768 * 256  # wte, two value embeddings, head
    seconds = muon_flops(D4) / 100e9 + 28 * tables / 20e9
    assert sum(update_seconds(D4, host(100), "float32")) == pytest.approx(seconds)
    halves = muon_flops(D4) / 100e9 + (14 * 3 + 28) * tables / 4 / 20e9
    assert sum(update_seconds(D4, host(100), "bfloat16")) == pytest.approx(halves)


@pytest.mark.parametrize(
    ("whole", "damaged"),
    [
        ('"format":1', '"format":2'),
        ('"products":100000000000.0', '"products":-1.0'),
        ('"products":100000000000.0', '"products":NaN'),
        ('{"products":', '{"product":'),
        ("}", ""),
    ],
)
def test_what_no_machine_has_was_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: str, damaged: str
) -> None:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path))
    save_measurement(measured({"": host(100)}))
    assert load_measurement("pair") is not None
    file = measurement_file("pair")
    text = json.dumps(json.loads(file.read_text()), separators=(",", ":"))
    assert whole in text
    file.write_text(text.replace(whole, damaged, 1))
    assert load_measurement("pair") is None
