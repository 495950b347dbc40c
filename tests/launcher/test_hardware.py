"""The hardware of a plan: measured, estimated, or measured for another device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from speeds import GIGA, host_speed, measurement

from launcher.hosts.gpus import Gpu, GpuFacts
from launcher.planner.datasheets import known_gpu
from launcher.planner.hardware import local_hardware
from launcher.planner.measurement import Measurement, Probe, load_measurement, measurement_file
from launcher.runs.record import write_json


def test_workers_share_the_cores_of_an_unmeasured_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr("launcher.planner.hardware.find_local_gpus", GpuFacts)
    one, four = (local_hardware(None, workers).machines[0].speed for workers in (1, 4))
    assert four.threads == 2
    assert four.widths[512].products == pytest.approx(one.widths[512].products / 4)
    assert four.memory_bytes_per_second == one.memory_bytes_per_second / 4


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("NVIDIA RTX A1000 Laptop GPU", None),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA GH200 480GB", None),
        ("AMD Instinct MI250X", "MI250"),
        ("NVIDIA GeForce RTX 4070 SUPER", "RTX 4070"),
    ],
)
def test_names_of_gpus(model: str, known: str | None) -> None:
    found = known_gpu(model)
    assert (found and found[0]) == known


@pytest.mark.parametrize(
    "damage",
    [
        {"device": "mps"},
        {"measured_at": 1e20},
        {"probe": {"shares": {}}},
        {"probe": {"tokens_per_step": 0}},
        {"hosts": {"one": {"threads": 3}}},
    ],
    ids=str,
)
def test_a_damaged_measurement_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: dict[str, Any]
) -> None:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path))
    probe = Probe(
        recipe="d4", depth=4, head_dim=64, sequence_length=512, tokens_per_step=2048,
        shares={"one": 1.0}, step_seconds=1.0, steps=6,
    )  # fmt: skip
    whole = measurement(one=host_speed()).model_copy(update={"probe": probe})
    content = whole.model_dump(mode="json")
    file = measurement_file("home")
    file.parent.mkdir()
    write_json(file, content)
    assert load_measurement("home") == whole
    for key, value in damage.items():
        if key == "hosts":
            content["hosts"]["one"] |= value["one"]
        elif isinstance(value, dict):
            content[key] |= value
        else:
            content[key] = value
    write_json(file, content)
    assert load_measurement("home") is None


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
    monkeypatch.setattr("launcher.planner.hardware.find_local_gpus", lambda: GpuFacts(gpus=(gpu,)))
    monkeypatch.setattr("launcher.planner.hardware.local_torch_version", lambda: build)
    measured = Measurement(
        cluster="local", measured_at=0.0, device="cpu", dtype="float32",
        versions={"torch": "2.13.0+cpu"}, hosts={"": host_speed()}, links={},
    )  # fmt: skip
    hardware = local_hardware(measured, 1)
    assert hardware.measured is counts
    assert hardware.machines[0].device == ("cpu" if counts else "cuda")
