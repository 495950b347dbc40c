"""`launch plan` on the shipped clusters, with no such machine at hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from speeds import host_speed, measurement

from launcher.cli.main import _run
from launcher.cli.plan import command
from launcher.planner.measurement import save_measurement
from launcher.planner.published_guide import claims


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def plan(*words: str) -> dict[str, Any]:
    done = CliRunner().invoke(command, [*words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    document: dict[str, Any] = json.loads(done.stdout)
    return document


LOGGED = [  # recipe, cluster, tokens per second of a public run on such a GPU
    ("d8", "rtx4070", 103_600),
    ("d12", "rtx4070", 55_700),
    ("d24", "mi300x", 67_700),
]


@pytest.mark.parametrize(("recipe", "cluster", "logged"), LOGGED)
def test_gpus_are_as_fast_as_they_were_logged(recipe: str, cluster: str, logged: float) -> None:
    found = plan(recipe, "--cluster", cluster)
    assert found["tokens_per_second"]["expected"] == pytest.approx(logged, rel=0.05)
    assert found["basis"] == "estimate" and "logged" in found["basis_words"]
    assert found["fits"] and found["verdict"].startswith("worth it")


D24 = [  # cluster, host -> GB that it needs, whether they are there, the verdict's words
    ("cpu2", {"cpu1": (48.4, True), "cpu2": (48.4, False)}, "does not fit: cpu2 needs 48.4 GB"),
    ("rtx4070", {"rtx4070": (41.9, False)}, "does not fit: rtx4070 needs 41.9 GB of 12 GB"),
    ("mi300x", {"mi300x": (41.9, True)}, "worth it: 1 d 12 h"),
]


@pytest.mark.parametrize(("cluster", "hosts", "words"), D24)
def test_d24(cluster: str, hosts: dict[str, tuple[float, bool]], words: str) -> None:
    """14.2 GB of state in bf16, 19.4 in float32; the rest is activations; no copy fits."""
    found = plan("d24", "--cluster", cluster)
    needs = {
        host["name"]: (round(host["peak_bytes"] / 1e9, 1), host["fits"]) for host in found["hosts"]
    }
    assert needs == hosts and found["fits"] == all(fits for _, fits in hosts.values())
    assert found["verdict"].startswith(words)
    assert {each["kind"] for each in found["alternatives"]} >= {"size", "tokens_per_step"}


def test_on_cpus_the_verdict_for_d12_is_a_gpu() -> None:
    found = plan("d12", "--cluster", "cpu2")
    assert found["verdict"].startswith("not worth it here: ")
    assert "one RTX 4070 was logged at 55,700 tok/s: 2 d 17 h" in found["verdict"]
    pools = plan("d12", "--cluster", "homelab", "--pool", "cpu")
    assert pools["verdict"].startswith("use AMD Instinct MI300X instead (--pool mi300x): ")


def test_the_waterfall_adds_up() -> None:
    done = CliRunner().invoke(command, ["d8", "--cluster", "cpu2", "--explain"])
    assert done.exit_code == 0
    for term in ("blocks", "attention", "head", "muon", "adamw", "exchange", "wire", "overlap"):
        assert f"  {term}" in done.stdout
    found = plan("d8", "--cluster", "cpu2")
    assert sum(term["seconds"] for term in found["terms"]) == pytest.approx(
        found["step_seconds"], abs=1e-3
    )


def test_the_guides_tables_for_a_cluster() -> None:
    page = plan("--all", "--cluster", "cpu2")
    assert [line["name"] for line in page["sizes"]] == ["d4", "d8", "d12", "d20", "d24"]
    assert [line["horizon"]["fits"] for line in page["sizes"]] == [True, True, True, False, False]
    d8 = page["sizes"][1]
    assert (
        d8["guide"]["cpu_tokens_per_second"] == 35 < d8["short_steps"]["tokens_per_second"]["low"]
    )
    assert len(page["claims"]) == len(claims())
    done = CliRunner().invoke(command, ["--all", "--cluster", "cpu2", "--markdown"])
    assert done.exit_code == 0
    titles = [line for line in done.stdout.splitlines() if line.startswith("#")]
    assert titles == [
        "# The sizing guide for cpu2",
        "## Sizes",
        "## Horizons on cpu2",
        "## Speed on cpu2",
        "## What is realistic on cpu2",
        "## The published guide, line by line",
    ]
    assert CliRunner().invoke(command, ["--all"]).exit_code == 0


WRONG = [
    (["plan"], "name a recipe, or --all"),
    (["plan", "d4", "--all"], "leave NAME out"),
    (["plan", "d4", "--markdown"], "--markdown is for --all"),
    (["plan", "d5"], "d5"),
    (["plan", "d4", "--cluster", "nowhere"], "nowhere"),
    (["plan", "d4", "--cluster", "homelab"], "--pool"),
    (["plan", "d4", "--pool", "gpu"], "local is one machine"),
    (["plan", "d12", "--cluster", "cpu2", "--set", "tokens_per_step=2048"], "none for cpu2"),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_what_is_wrong_is_said(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(words) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_a_dry_run_has_the_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["recipe", "d8", "--cluster", "rtx4070", "--dry-run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (
        document["predicted"]["tokens_per_second"]
        == plan("d8", "--cluster", "rtx4070")["tokens_per_second"]
    )


def test_shares_that_leave_a_host_none_of_a_short_step(tmp_path: Path) -> None:
    file = tmp_path / "uneven.yaml"
    file.write_text("nodes: [{host: a, share: 10}, {host: b, share: 0.5}]\n")
    page = plan("--all", "--cluster", str(file))
    assert page["sizes"][0]["short_steps"]["tokens_per_step"] == 16 * 512


def test_what_was_measured_of_cpus_is_not_said_of_gpus(tmp_path: Path) -> None:
    file = tmp_path / "home.yaml"
    save_measurement(measurement(a=host_speed()))
    bases = []
    for accelerator in ("cpu", "cuda"):
        file.write_text(f"nodes: [{{host: a, accelerator: {accelerator}}}]\n")
        bases.append(plan("d8", "--cluster", str(file))["basis"])
    assert bases == ["measured", "estimate"]


def test_the_memory_of_a_gpu_is_not_made_up(tmp_path: Path) -> None:
    file = tmp_path / "gpu.yaml"
    file.write_text("nodes: [{host: a, accelerator: rocm, gpu_model: AMD Instinct MI300X}]\n")
    found = plan("d24", "--cluster", str(file))
    assert found["hosts"][0]["available_bytes"] is None and found["hosts"][0]["fits"] is None
    assert found["verdict"].startswith("worth it")


def test_a_small_model_on_a_large_gpu_waits_for_its_cpu() -> None:
    found = plan("d4", "--cluster", "mi300x")
    assert found["bottleneck"].startswith("starting kernels on mi300x; of a step compute 1%")


def test_a_small_model_is_not_slower_than_a_larger_one(tmp_path: Path) -> None:
    """Short steps of d4 and d8 were logged on H100s, which waited for their CPU: no rate of one."""
    file = tmp_path / "gpu.yaml"
    file.write_text("nodes: [{host: a, accelerator: cuda, gpu_model: NVIDIA H100 80GB HBM3}]\n")
    speeds = [
        plan("d12", "--cluster", str(file), "--set", f"depth={depth}")["tokens_per_second"]
        for depth in (4, 8, 12)
    ]
    expected = [speed["expected"] for speed in speeds]
    assert expected == sorted(expected, reverse=True)


def test_the_command_that_measures_names_the_pool_or_the_file(tmp_path: Path) -> None:
    file = tmp_path / "home.yaml"
    file.write_text("nodes: [{host: a, cpus: 8}, {host: b, cpus: 2}]\n")
    for where in (["--cluster", "homelab", "--pool", "cpu"], ["--cluster", file.name]):
        [balanced] = [
            each for each in plan("d8", *where)["alternatives"] if each["kind"] == "shares"
        ]
        assert balanced["options"] == f"launch measure {' '.join(where)}"
