"""What earlier versions have written still loads, also torn, and is written again unchanged.

`run_cases/` holds run folders in the format of November 2026, before records had types. `local` and
`imported` are of real runs; the first six steps of `local` have no time, as in still earlier
versions. `cluster` and cluster.json were written by that version's functions; the run has keys and
a kind of event that no version knows, as a later one may write them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from records import append_metrics, make_metric

from launcher.errors import InputError
from launcher.operations.list_runs import list_runs
from launcher.operations.resume_run import updated_spec
from launcher.raycluster.spec import ClusterSpec
from launcher.runs.events import (
    KINDS,
    CheckpointEvent,
    Event,
    RestartEvent,
    ResumeEvent,
    StartEvent,
    parse_event,
    read_events,
)
from launcher.runs.failure import Failure
from launcher.runs.folder import RunFolder, find_run
from launcher.runs.history import RunHistory
from launcher.runs.json_lines import JsonLinesTail, read_json_lines, read_last_json_lines
from launcher.runs.metric import read_last_metrics, read_metrics
from launcher.runs.overrides import apply_overrides, require_complete_spec
from launcher.runs.record import write_json
from launcher.runs.spec import OTHER_VERSION_FIX, Extension
from launcher.runs.state import RunState, count_attempts, last_members, last_saved_step
from launcher.runs.submission import Submission
from nanochat.sizes import ModelConfig

RUN_CASES = Path(__file__).parent / "run_cases"
CASES = ("local", "cluster", "imported")
STAGES = {
    "detection": 8.2, "teardown": 0.4, "wait": 0.5, "start": 0.6, "import": 0.0, "group": 0.4,
    "load": 0.2, "step": 1.6,
}  # fmt: skip
STATES: dict[str, dict[str, Any]] = {  # as the version that wrote the folders said
    "local": {
        "run": "local", "cluster": "local", "recipe": "tiny", "status": "finished", "step": 8,
        "steps": 8, "created": 1795974980.5134304, "train_loss": 5.9930419921875,
        "val_bpb": 5.879242864607844, "tokens_per_second": 916.15, "restarts": 1, "resizes": 0,
        "recovery": None,
    },
    "cluster": {
        "run": "cluster", "cluster": "home", "recipe": "tiny", "status": "failed", "step": 5,
        "steps": 8, "created": 1795899959.0, "train_loss": 6.064382076263428, "val_bpb": 5.95,
        "tokens_per_second": 1848.375, "restarts": 1, "resizes": 2,
        "recovery": {"seconds": 11.9, "stages": STAGES, "step": 3, "replays": 1},
    },
    "imported": {
        "run": "imported", "cluster": "local", "recipe": "d2", "status": "imported", "step": 8,
        "steps": 8, "created": 1795975065.1945713, "train_loss": 5.9930419921875,
        "val_bpb": 5.879242864607844, "tokens_per_second": None, "restarts": 0, "resizes": 0,
        "recovery": None,
    },
}  # fmt: skip
TORN_LINES = [
    pytest.param(b'{"step": 4, "attempt": 0, "lo', id="partial"),
    pytest.param(b"\x00\x00\x00\x00", id="zeros"),
    pytest.param(b"[4, 0]", id="another type"),
    pytest.param(b'{"step": 4, "attempt": 0, "tokens": 8192}', id="without loss"),
    pytest.param(b'{"step": "four", "attempt": 0, "loss": 6.1}', id="wrong value"),
]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> RunFolder:
    return copy_case(request.param, tmp_path)


def copy_case(name: str, folder: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(RUN_CASES / name, folder / name)))


def json_of(path: Path) -> Any:
    return json.loads(path.read_bytes())


# --- run.json


def test_every_key_of_a_run_is_written_again(case: RunFolder) -> None:
    before = json_of(case.spec_file)
    spec = case.spec()
    assert json.loads(spec.to_bytes()) == before
    spec.write(case.spec_file)
    assert json_of(case.spec_file) == before
    case.update_spec(entered=7.5)
    assert json_of(case.spec_file) == before | {"entered": 7.5}


def test_threads_of_the_first_versions_are_those_of_this_machine(tmp_path: Path) -> None:
    folder = copy_case("local", tmp_path)
    write_json(folder.spec_file, json_of(folder.spec_file) | {"threads": 2})
    assert folder.spec().threads == {"": 2}


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"steps": None}, "lacks steps"),
        ({"steps": "many"}, "has a wrong steps: input should be a valid integer"),
        ({"created": "today"}, "has a wrong created: input should be a valid number"),
        ({"created": 1e400}, "has a wrong created: value error, inf is out of range"),
        ({"created": -1}, "has a wrong created: value error, -1 is out of range"),
    ],
)
def test_a_run_that_cannot_be_read_is_there_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], reason: str
) -> None:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path))
    copy_case("local", tmp_path / "runs")
    folder = copy_case("imported", tmp_path / "runs")
    content = json_of(folder.spec_file) | change
    write_json(folder.spec_file, {key: value for key, value in content.items() if value})
    notes: list[str] = []
    assert [state.run for state in list_runs(notify=notes.append)] == ["local"]
    assert len(notes) == 1 and notes[0].startswith(f"left out: {folder.spec_file} {reason}")
    assert find_run("imported") == folder
    with pytest.raises(InputError, match=reason) as caught:
        updated_spec(folder, (), None)
    assert caught.value.fix == OTHER_VERSION_FIX


@pytest.mark.parametrize("key", ["nodes", "versions", "chosen", "predicted", "data", "reasons"])
@pytest.mark.parametrize("value", [None, 5, "x", [[]], {"torch": 2}])
def test_a_wrong_option_counts_as_missing(tmp_path: Path, key: str, value: object) -> None:
    folder = copy_case("cluster", tmp_path)
    before = json_of(folder.spec_file)
    write_json(folder.spec_file, before | {key: value})
    spec = folder.spec()
    assert spec.as_json() in (before | {key: value}, {k: v for k, v in before.items() if k != key})
    assert RunState.of(folder, alive=False) == RunState.of(copy_case("cluster", tmp_path / "2"))


def test_what_cannot_be_read_is_written_again(tmp_path: Path) -> None:
    """Of a later version, which goes on with the run after this one."""
    folder = copy_case("cluster", tmp_path)
    before = json_of(folder.spec_file)
    before["nodes"][0]["share"] = "auto"
    write_json(folder.spec_file, before := before | {"device": ["cpu"], "extended": [{"from": 1}]})
    assert folder.spec().device is None and folder.spec().nodes[0].share == 1.0
    folder.update_spec(entered=7.5)
    assert json_of(folder.spec_file) == before | {"entered": 7.5}
    with pytest.raises(InputError, match=r"lacks extended\.0\.to, extended\.0\.at_step"):
        updated_spec(folder, (), None)  # what acts on it does not guess


def test_a_run_that_no_driver_could_read_gets_none(tmp_path: Path) -> None:
    folder = copy_case("cluster", tmp_path)
    folder.summary_file.unlink(missing_ok=True)
    assert folder.needs_driver
    write_json(folder.spec_file, json_of(folder.spec_file) | {"steps": "many"})
    assert not folder.needs_driver


def test_a_clock_that_was_set_back_stops_nothing() -> None:
    event = RestartEvent.now(stage="group", seconds=-0.2, stages={"start": -0.001})
    assert parse_event(event.as_json()) == event


def test_keys_named_like_ours_are_kept(tmp_path: Path) -> None:
    """Of a later version: a field's own name here, a method's, one too deep for most programs."""
    folder = copy_case("local", tmp_path)
    deep: dict[str, Any] = {}
    for _ in range(300):  # pydantic writes 255
        deep = {"a": deep}
    names = {"recipe_name": "x", "copy": 1, "json": [], "shares": {"a": 2}, "d": deep}
    write_json(folder.spec_file, before := json_of(folder.spec_file) | names)
    assert folder.update_spec(entered=7.5).recipe_name == "tiny"
    assert json_of(folder.spec_file) == before | {"entered": 7.5}


def test_what_no_program_can_print_is_replaced(tmp_path: Path) -> None:
    folder = copy_case("local", tmp_path)
    folder.spec_file.write_text(
        json.dumps(json_of(folder.spec_file) | {"recipe": "\ud800", "pool": "\U0001f600"})
    )
    assert (folder.spec().recipe_name, folder.spec().pool) == ("\ufffd", "\U0001f600")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda file: file.write_bytes(b"[" * 100_000), id="deep"),
        pytest.param(lambda file: file.write_text('{"created": ' + "9" * 5000 + "}"), id="digits"),
        pytest.param(lambda file: file.write_bytes("{}".encode("utf-16")), id="utf-16"),
        pytest.param(lambda file: file.mkdir(), id="folder"),
        pytest.param(os.mkfifo, id="pipe"),
    ],
)
def test_one_damaged_run_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], object]
) -> None:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path))
    copy_case("local", tmp_path / "runs")
    folder = copy_case("imported", tmp_path / "runs")
    folder.spec_file.unlink()
    damage(folder.spec_file)
    notes: list[str] = []
    assert [state.run for state in list_runs(notify=notes.append)] == ["local"]
    assert notes == [f"left out: {folder.spec_file} is damaged: it is no JSON object"]


def test_a_summary_of_another_version_is_an_end(tmp_path: Path) -> None:
    """No supervisor starts such a run again."""
    folder = copy_case("cluster", tmp_path)
    write_json(folder.summary_file, {"status": "finished"})
    assert not folder.needs_driver
    assert RunState.of(folder, alive=False).status == "finished"
    folder.summary_file.write_bytes(b'{"sta')
    assert folder.needs_driver


def test_a_run_of_a_cluster_has_its_fields(tmp_path: Path) -> None:
    folder = copy_case("cluster", tmp_path)
    spec = require_complete_spec(folder)
    assert (spec.run, spec.recipe_name, spec.cluster, spec.pool) == ("night", "tiny", "home", None)
    attic, cellar = spec.nodes
    assert (attic.name, attic.ranks_per_node, attic.cpus_per_rank) == ("attic", 1, 8)
    assert (cellar.address, cellar.ranks_per_node, cellar.cpus_per_rank) == ("192.168.1.6", 2, 8)
    assert (cellar.accelerator, cellar.pool, cellar.interface) == ("cuda", "gpus", "enp3s0")
    assert spec.shares == spec.tuning.shares == {"attic": 0.5, "cellar": 1.5}
    assert (spec.tuning.threads, spec.tuning.micro_batch) == ({"attic": 6}, 16)
    assert spec.tuning.cpus == spec.cpus == {"attic": (0, 1, 2, 3, 4, 5)}
    assert spec.predicted is not None and spec.predicted.tokens_per_second.expected == 2750.0
    model = ModelConfig(depth=2, head_dim=32, sequence_length=64, vocab_size=512)
    assert spec.benchmark is not None and spec.benchmark.models == (model,)
    assert spec.data is not None and spec.data.identity["packing_version"] == 2
    assert (spec.device, spec.dtype, spec.threads["cellar"]) == ("cpu", "float32", 8)
    assert spec.waits and spec.text == {"source": "7d1e0b52c8f34a96"}
    assert spec.recipe.elastic and spec.recipe.workers == 3
    assert folder.submission() == Submission(
        time=1795900000.0, started_by_supervisor=True, starts=2, step=5
    )  # fmt: skip
    assert folder.failure() == Failure(message="attic: the disk is full", fix="Make room there.")
    assert folder.submission().as_json() == json_of(folder.submission_file)
    assert not folder.needs_driver  # it has ended


def test_a_run_of_this_machine_has_its_fields(tmp_path: Path) -> None:
    spec = require_complete_spec(copy_case("local", tmp_path))
    assert spec.extended == (Extension(from_steps=6, to_steps=8, at_step=6),)
    assert spec.shares == {"": 1.0} and spec.nodes == () and spec.benchmark is None
    assert spec.imported_from is None and spec.threads == {"": 2}


def test_an_imported_run_says_where_it_is_from(tmp_path: Path) -> None:
    assert copy_case("imported", tmp_path).spec().imported_from == "/home/ada/out"


def test_settings_are_the_recipe(case: RunFolder) -> None:
    settings = json_of(case.spec_file)["settings"]
    assert apply_overrides(case.spec(), []).recipe.model_dump(mode="json") == settings
    changed = apply_overrides(case.spec(), ["checkpoint.keep=5"]).recipe.model_dump(mode="json")
    assert changed == settings | {"checkpoint": settings["checkpoint"] | {"keep": 5}}


def test_a_run_that_is_to_resume_changes_where_it_was_told_to(tmp_path: Path) -> None:
    folder = copy_case("cluster", tmp_path)
    before = json_of(folder.spec_file)
    assert updated_spec(folder, [], None)[1].as_json() == before
    changed = updated_spec(folder, ["micro_batch=8"], None)[1].as_json()
    assert changed == before | {"settings": before["settings"] | {"micro_batch": 8}}


def test_a_run_that_was_prolonged_before_can_be_again(tmp_path: Path) -> None:
    folder = copy_case("local", tmp_path)
    before = json_of(folder.spec_file)
    changed = updated_spec(folder, [], 2)[1].as_json()
    entry = {"from": 8, "to": 10, "at_step": 8}
    settings = before["settings"] | {"steps": 10}
    assert changed == before | {
        "steps": 10, "settings": settings, "extended": [*before["extended"], entry]
    }  # fmt: skip


@pytest.mark.parametrize("key", ["recipe", "cluster", "created", "steps"])
def test_a_record_without_what_every_run_has_is_no_run(tmp_path: Path, key: str) -> None:
    folder = copy_case("local", tmp_path)
    content = json_of(folder.spec_file)
    del content[key]
    folder.spec_file.write_text(json.dumps(content))
    assert folder.find_spec() is None
    with pytest.raises(InputError) as refused:
        folder.spec()
    assert refused.value.message == f"{folder.spec_file} lacks {key}"


@pytest.mark.parametrize("content", [b"", b'{"run": "loc', b"[]", b"\x00\x00"])
def test_a_torn_record_is_damage(tmp_path: Path, content: bytes) -> None:
    folder = copy_case("local", tmp_path)
    for file in (folder.spec_file, folder.summary_file, folder.submission_file):
        file.write_bytes(content)
    assert folder.find_spec() is None and folder.summary() is None
    assert folder.submission() == Submission()
    with pytest.raises(InputError, match=r"local/run\.json is damaged: it is no JSON object"):
        folder.spec()


# --- what became of it


def test_states_are_what_they_were(case: RunFolder) -> None:
    assert asdict(RunState.of(case, alive=False)) == STATES[case.name]


def test_a_run_that_trains_again_has_no_summary(tmp_path: Path) -> None:
    """Its speed is the median of its last steps, where its summary said that of all."""
    folder = copy_case("cluster", tmp_path)
    expected = STATES["cluster"] | {"status": "running", "tokens_per_second": 2275.556}
    assert asdict(RunState.of(folder, alive=True)) == expected


def test_summaries_are_written_again_unchanged(case: RunFolder) -> None:
    summary = case.summary()
    assert summary is not None and summary.as_json() == json_of(case.summary_file)


# --- metrics.jsonl


def test_steps_without_a_time_are_steps(tmp_path: Path) -> None:
    folder = copy_case("local", tmp_path)
    metrics = read_metrics(folder.metrics)
    assert [metric.as_json() for metric in metrics] == read_json_lines(folder.metrics)
    assert [metric.step for metric in metrics] == [*range(1, 9)]
    assert [metric.time for metric in metrics] == [None] * 6 + [1795975055.416, 1795975057.783]
    history = RunHistory.of(folder, "local")
    assert history.tokens == [2048 * step for step in range(1, 9)]
    assert history.evaluated_tokens == [2048 * step for step in (0, 3, 6, 8)]
    assert len(history.restart_hours) == 1 and list(history.replayed_spans) == []


@pytest.mark.parametrize("line", TORN_LINES)
@pytest.mark.parametrize("after", [0, 3, 8])
def test_a_line_that_is_no_step_is_skipped(tmp_path: Path, line: bytes, after: int) -> None:
    folder = copy_case("local", tmp_path)
    before = read_metrics(folder.metrics)
    lines = folder.metrics.read_bytes().splitlines()
    folder.metrics.write_bytes(b"\n".join([*lines[:after], line, *lines[after:], b""]))
    assert read_metrics(folder.metrics) == before
    assert read_last_metrics(folder.metrics, 10**6) == before
    assert RunState.of(folder, alive=False).step == 8


def test_a_line_that_is_being_written_is_read_when_it_ends(tmp_path: Path) -> None:
    folder = copy_case("local", tmp_path)
    tail = JsonLinesTail(folder.metrics)
    assert len(tail.read()) == 8
    with folder.metrics.open("ab") as file:
        file.write(b'{"step": 9, "lo')
    assert tail.read() == []
    with folder.metrics.open("ab") as file:
        file.write(b'ss": 6.0}\n')
    assert tail.read() == [{"step": 9, "loss": 6.0}]


def test_a_line_that_a_crash_has_torn_is_not_continued(tmp_path: Path) -> None:
    folder = copy_case("local", tmp_path)
    before = read_metrics(folder.metrics)
    with folder.metrics.open("ab") as file:
        file.write(b'{"step": 9, "lo')
    append_metrics(folder, made := make_metric(9, attempt=2))
    assert read_metrics(folder.metrics) == [*before, made]


def test_the_end_of_a_long_file_begins_with_a_whole_line(tmp_path: Path) -> None:
    folder = copy_case("local", tmp_path)
    every = read_json_lines(folder.metrics)
    last = len(folder.metrics.read_bytes().splitlines(keepends=True)[-1])
    assert read_last_json_lines(folder.metrics, last + 5) == every[-1:]
    assert read_last_json_lines(folder.metrics, 10**6) == every
    assert read_last_json_lines(tmp_path / "none.jsonl", 10) == []


# --- events.jsonl


def test_every_event_keeps_its_place_and_its_keys(case: RunFolder) -> None:
    contents = read_json_lines(case.events)
    events = read_events(case.events)
    assert [event.as_json() for event in events] == contents
    known = [KINDS.get(content["kind"], Event) for content in contents]
    assert [type(event) for event in events] == known


def test_what_no_version_knows_is_kept(tmp_path: Path) -> None:
    events = read_events(copy_case("cluster", tmp_path).events)
    [(place, backup)] = [(i, e) for i, e in enumerate(events) if type(e) is Event]
    assert (backup.kind, backup.as_json()["target"]) == ("backup", "nas")
    assert (events[place - 1].kind, events[place + 1].kind) == ("memory", "resize")
    [resumed] = [
        event for event in events
        if isinstance(event, ResumeEvent) and "from_host" in event.as_json()
    ]  # fmt: skip
    assert (resumed.step, resumed.as_json()["from_host"]) == (4, "attic")


def test_events_say_how_far_a_run_is(tmp_path: Path) -> None:
    folder = copy_case("cluster", tmp_path)
    assert count_attempts(read_events(folder.events)) == 4
    assert last_saved_step(folder) == 4
    assert last_members(folder, ("attic",)) == ("attic", "cellar")
    local = copy_case("local", tmp_path)
    assert count_attempts(read_events(local.events)) == 2 and last_saved_step(local) == 8


@pytest.mark.parametrize(
    "content",
    [
        {"time": 5.0, "kind": "checkpoint", "path": "step-00000009"},
        {"time": 5.0, "kind": "checkpoint", "step": "nine"},
        {"time": 5.0, "kind": "backup", "target": "nas"},
    ],
    ids=["lacks a key", "wrong value", "unknown kind"],
)
def test_a_line_that_its_kind_cannot_be_read_from_stays_in_place(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    folder = copy_case("local", tmp_path)
    lines = folder.events.read_bytes().splitlines()
    torn = json.dumps(content).encode()
    folder.events.write_bytes(b"\n".join([*lines[:3], torn, *lines[3:], b'{"kind": "sto']))
    events = read_events(folder.events)
    assert len(events) == len(lines) + 1
    assert type(events[3]) is Event and events[3].as_json() == content
    assert isinstance(events[4], StartEvent) and events[4].stage == "ray"
    assert last_saved_step(folder) == 8  # of those that are whole
    assert sum(isinstance(event, CheckpointEvent) for event in events) == 3


# --- cluster.json


def test_what_a_host_knows_of_its_cluster_is_read_and_written_again() -> None:
    content = (RUN_CASES / "cluster.json").read_bytes()
    spec = ClusterSpec.from_bytes(content)
    assert (spec.cluster, spec.head.name, spec.is_head) == ("home", "attic", True)
    assert (spec.env, spec.code, spec.python) == ("1f0c2a9d4b7e6583", "9a61d03be7f4528c", None)
    assert (spec.profile, spec.idle_minutes) == ("lan", 30.0)
    cellar = spec.nodes[1]
    assert (cellar.ranks_per_node, cellar.share, cellar.accelerator) == (2, 3.0, "cuda")
    assert spec.to_bytes() == content
    assert spec.key == "2af23573e48d962e"  # as that version said: its Ray is not restarted
    there = spec.for_node("cellar", env="e2", python="p2")
    assert json.loads(there.to_bytes()) == json.loads(content) | {
        "node": "cellar", "env": "e2", "python": "p2"
    }  # fmt: skip
    assert ClusterSpec.from_bytes(there.to_bytes()) == there
    assert there.key == ClusterSpec.from_bytes(there.to_bytes()).key != spec.key
