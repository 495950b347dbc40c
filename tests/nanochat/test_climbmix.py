"""climbmix from a mirror: fetched in order, packed shard by shard, trained on while it comes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from mirror import Mirror, publish, serving
from tiny import Recorder, equal, newest_tensors, plan, run, shape

from nanochat.dataset import PreparedData, climbmix, encoding, rows, split_writer
from nanochat.dataset.climbmix import TRAINING_SHARDS, ClimbmixSource, shard_name, shards_for
from nanochat.dataset.prepare import prepare
from nanochat.dataset.sources import parse_source
from nanochat.errors import DataError, IdentityError

SHARDS = 4
ROWS_PER_BLOCK = 64
LENGTH = 64


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the hub has it: 4 shards of 400 documents to train on, and the last one."""
    folder = tmp_path_factory.mktemp("published")
    publish(folder, SHARDS, documents=400)
    return folder


@pytest.fixture
def mirror(published: Path) -> Iterator[Mirror]:
    with serving(published) as server:
        yield server


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_writer, "ROWS_PER_BLOCK", ROWS_PER_BLOCK)
    monkeypatch.setattr(encoding, "BACKGROUND", None)  # this process goes on to other tests
    monkeypatch.setattr(climbmix, "FIRST_PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(climbmix, "PATIENCE_SECONDS", 0.5)


def prepared(cache: Path, mirror: str | None, shards: int = SHARDS, **changes: Any) -> PreparedData:
    source = parse_source(f"climbmix:{shards}", cache, shards=cache / "climbmix", mirror=mirror)
    options: dict[str, Any] = {
        "sequence_length": LENGTH,
        "vocab_size": 512,
        "validation": None,
        "threads": 2,
        "on_progress": lambda stage, done, total: None,
    }
    return prepare(source, cache=cache, **{**options, **changes})


def rows_of(data: PreparedData) -> list[list[int]]:
    return data.train_rows.batch(range(len(data.train_rows))).tolist()


def test_shards_come_in_the_order_of_need_and_once(mirror: Mirror, tmp_path: Path) -> None:
    data = prepared(tmp_path, mirror.address)
    wanted = [shard_name(number) for number in (TRAINING_SHARDS, *range(SHARDS))]
    assert sorted(mirror.names()[:2]) == sorted(wanted[:2])
    assert sorted(mirror.names()) == sorted(wanted)
    other = prepared(tmp_path, mirror.address, sequence_length=32)
    assert len(mirror.requests) == SHARDS + 1
    assert other.tokenizer.sha256 == data.tokenizer.sha256
    assert data.manifest.train.documents == SHARDS * 400
    assert data.manifest.validation.files[0].name == f"climbmix/{shard_name(TRAINING_SHARDS)}"


def test_a_broken_download_warns_once(mirror: Mirror, tmp_path: Path) -> None:
    """The server says another number of bytes each time it breaks off."""
    told: list[str] = []

    def note(stage: str, done: float, total: float | None) -> None:
        if total is None:
            told.append(stage)

    mirror.breaks_after = 20_000
    prepared(tmp_path, mirror.address, shards=1, on_progress=note)
    assert len(mirror.requests) > 4
    names = sorted(words.partition(": ")[0] for words in told)
    assert names == [shard_name(0), shard_name(TRAINING_SHARDS)]
    assert all(words.endswith(": trying again") for words in told)


def test_a_folder_is_a_mirror_and_gives_the_same_rows(
    mirror: Mirror, published: Path, tmp_path: Path
) -> None:
    fetched = prepared(tmp_path / "one", mirror.address)
    local = prepared(tmp_path / "two", str(published))
    assert rows_of(fetched) == rows_of(local)
    assert fetched.identity() == local.identity()
    assert not (tmp_path / "two" / "climbmix").exists()


def test_more_shards_begin_with_the_same_rows(published: Path, tmp_path: Path) -> None:
    few, many = (prepared(tmp_path, str(published), shards=shards) for shards in (2, 3))
    assert rows_of(many)[: len(few.train_rows)] == rows_of(few)
    blocks = len(few.manifest.train.blocks)
    assert many.manifest.train.blocks[:blocks] == few.manifest.train.blocks


def test_a_folder_without_a_shard_is_refused_at_once(published: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{shard_name(SHARDS)} is not there, nor are 2 more of"):
        prepared(tmp_path, str(published), shards=SHARDS + 3)
    with pytest.raises(DataError, match="not a number of shards"):
        prepared(tmp_path, str(published), shards=0)


def test_shards_are_as_many_as_the_horizon_needs() -> None:
    assert shards_for(30_000_000, 2048) == 1
    assert shards_for(30_000_001, 2048) == 2
    assert shards_for(30_000_000, 512) == 2
    assert shards_for(10**15, 2048) == TRAINING_SHARDS


# --- training while it comes


def test_training_begins_before_the_last_shard_is_there(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "UNATTENDED_SECONDS", 1.0)
    mirror.closed_names = {shard_name(3)}
    ready: list[PreparedData] = []
    with pytest.raises(DataError, match="404"):
        prepared(tmp_path, mirror.address, on_ready=ready.append)
    [data] = ready
    assert len(data.train_rows) == ROWS_PER_BLOCK
    assert not data.manifest.complete
    config = plan(model=shape(sequence_length=LENGTH), tokens_per_step=4 * LENGTH, steps=8)
    assert run(config, data, tmp_path / "run", Recorder()).steps == 8
    # Rows beyond what there is: the run ends with the reason, and its steps are kept.
    many = len(PreparedData.load(data.path).train_rows) // 4
    config = plan(
        model=shape(sequence_length=LENGTH),
        tokens_per_step=4 * LENGTH, steps=many + 1,
    )  # fmt: skip
    observer = Recorder()
    with pytest.raises(DataError, match=r"shard_00003\.parquet: the server says 404"):
        run(config, data, tmp_path / "long", observer)
    assert observer.of("step")[-1] == many
    # The shard is there again: preparation goes on behind the last whole one, and so does the run.
    mirror.closed_names = set()
    asked = len(mirror.requests)
    whole = prepared(tmp_path, mirror.address)
    assert mirror.names()[asked:] == [shard_name(3)]
    assert run(config, whole, tmp_path / "long", Recorder()).steps == many + 1


def test_rows_that_came_late_make_the_same_run(
    mirror: Mirror, published: Path, tmp_path: Path
) -> None:
    whole = prepared(tmp_path / "whole", str(published))
    steps = len(whole.train_rows) // 4 + 2  # and into the second epoch
    config = plan(
        model=shape(sequence_length=LENGTH), tokens_per_step=4 * LENGTH, steps=steps,
        evaluate_every_steps=20,
    )  # fmt: skip
    expected, seen = Recorder(), Recorder()
    run(config, whole, tmp_path / "expected", expected)
    mirror.pause_seconds = 0.05  # the last shards are still coming when steps need them
    ready = threading.Event()
    begun: list[PreparedData] = []

    def on_ready(data: PreparedData) -> None:
        begun.append(data)
        ready.set()

    thread = threading.Thread(
        target=prepared, args=(tmp_path / "late", mirror.address), kwargs={"on_ready": on_ready}
    )
    thread.start()
    assert ready.wait(60)
    run(config, begun[0], tmp_path / "seen", seen)
    thread.join()
    assert seen.of("loss") == expected.of("loss")
    assert equal(newest_tensors(tmp_path / "seen"), newest_tensors(tmp_path / "expected"))
    assert [event["step"] for event in seen.events if event["kind"] == "text"]  # it did wait


def with_another_shard(published: Path, folder: Path, number: int) -> Path:
    """A copy in which one shard has fewer documents."""
    other = Path(shutil.copytree(published, folder / "other"))
    table = pq.read_table(other / shard_name(number))
    pq.write_table(table.slice(0, 300), other / shard_name(number))
    return other


def test_other_rows_than_those_trained_on_are_refused(published: Path, tmp_path: Path) -> None:
    """Names decide which climbmix it is; what was in the shards, the hashes of the rows."""
    other = with_another_shard(published, tmp_path, 1)
    one, two = (prepared(tmp_path / str(i), str(f)) for i, f in enumerate((published, other)))
    assert one.identity() == two.identity()
    steps = len(one.train_rows) // 4
    config = plan(model=shape(sequence_length=LENGTH), tokens_per_step=4 * LENGTH, steps=steps)
    early = Recorder(stop_at=5)
    run(config, one, tmp_path / "early", early)
    run(config, two, tmp_path / "early", Recorder(stop_at=1))  # the first shard is the same
    run(config, one, tmp_path / "late", Recorder(stop_at=steps - 1))
    with pytest.raises(IdentityError, match="are not those that were trained on"):
        run(config, two, tmp_path / "late", Recorder())


PREPARE = """
import json, sys, time
from pathlib import Path
from nanochat.dataset import sources
from nanochat.dataset import split_writer
from nanochat.dataset.prepare import prepare
split_writer.ROWS_PER_BLOCK = 64
cache, mirror = Path(sys.argv[1]), sys.argv[2]
source = sources.parse_source("climbmix:4", cache, shards=cache / "climbmix", mirror=mirror)
data = prepare(source, cache=cache, sequence_length=64, vocab_size=512, validation=None, threads=1,
               on_progress=lambda *_: None, on_ready=lambda _: print("ready", flush=True))
print(json.dumps([block.sha256 for block in data.manifest.train.blocks]))
"""


def test_killed_in_the_middle_it_goes_on_there(
    mirror: Mirror, published: Path, tmp_path: Path
) -> None:
    expected = prepared(tmp_path / "whole", str(published)).manifest.train.blocks
    mirror.pause_seconds = 0.02
    command = [sys.executable, "-c", PREPARE, str(tmp_path / "cache"), mirror.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGKILL)
    mirror.pause_seconds = 0.0
    again = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    ready, hashes = again.splitlines()
    assert ready == "ready"
    assert json.loads(hashes) == [block.sha256 for block in expected]


def test_two_processes_prepare_once_and_both_begin_early(mirror: Mirror, tmp_path: Path) -> None:
    mirror.pause_seconds = 0.02
    command = [sys.executable, "-c", PREPARE, str(tmp_path), mirror.address]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0].splitlines() for process in processes]
    assert outputs[0] == outputs[1]
    assert outputs[0][0] == "ready"
    assert len(mirror.requests) == SHARDS + 1


def test_a_changed_text_behind_an_interruption_is_noticed(published: Path, tmp_path: Path) -> None:
    data = prepared(tmp_path, str(published))
    manifest = json.loads((data.path / "manifest.json").read_text())
    manifest["complete"] = False
    (data.path / "manifest.json").write_text(json.dumps(manifest))
    log = data.path / "train.jsonl"
    lines = log.read_text().splitlines()
    last_unit = [number for number, line in enumerate(lines) if "unit" in line][-1]
    other = json.loads(lines[last_unit - 1])
    other["block"]["sha256"] = "0" * 64
    log.write_text("\n".join([*lines[: last_unit - 1], json.dumps(other), '{"torn']))
    with pytest.raises(DataError, match="the text has changed meanwhile"):
        prepared(tmp_path, str(published))


def reopen(data: PreparedData) -> None:
    """As if its preparation had been interrupted before the end."""
    manifest = json.loads((data.path / "manifest.json").read_text())
    (data.path / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))


def test_of_an_interrupted_preparation_whole_units_stay(published: Path, tmp_path: Path) -> None:
    data = prepared(tmp_path, str(published))
    lines = (data.path / "train.jsonl").read_text().splitlines()
    first_unit = next(number for number, line in enumerate(lines) if "unit" in line)
    kept = [data.path / json.loads(line)["block"]["name"] for line in lines[:first_unit]]
    before = [path.stat().st_ino for path in kept]
    (data.path / json.loads(lines[first_unit + 1])["block"]["name"]).unlink()
    reopen(data)
    assert prepared(tmp_path, str(published)).manifest == data.manifest
    assert [path.stat().st_ino for path in kept] == before
    (data.path / "train.jsonl").write_bytes(bytes(100) + b"\n")  # after a power cut
    reopen(data)
    assert prepared(tmp_path, str(published)).manifest == data.manifest


def test_fewer_rows_than_were_announced_are_noticed(published: Path, tmp_path: Path) -> None:
    data = prepared(tmp_path, str(published))
    reopen(data)
    log = data.path / "train.jsonl"
    *lines, _ = log.read_text().splitlines()  # without the end of the last unit
    block = json.loads(lines[-1])["block"]
    more = {**block, "name": f"train-{len(data.manifest.train.blocks):05d}.rows"}
    (data.path / more["name"]).write_bytes((data.path / block["name"]).read_bytes())
    log.write_text("\n".join([*lines, json.dumps({"block": more}), ""]))
    with pytest.raises(DataError, match="the text has changed meanwhile"):
        prepared(tmp_path, str(published))


def test_other_text_under_the_same_names_is_other_text(published: Path, tmp_path: Path) -> None:
    """A mirror is a copy; one whose first shard is another is none, and gets rows of its own."""
    other = with_another_shard(published, tmp_path, 0)
    one, two = (prepared(tmp_path, str(folder)) for folder in (published, other))
    assert one.identity() != two.identity()
    assert one.path != two.path


def test_a_damaged_shard_is_named_with_what_helps(published: Path, tmp_path: Path) -> None:
    shards = Path(shutil.copytree(published, tmp_path / "climbmix"))
    content = bytearray((shards / shard_name(1)).read_bytes())
    content[100:400] = bytes(300)
    (shards / shard_name(1)).write_bytes(content)
    with pytest.raises(DataError, match=r"shard_00001\.parquet: damaged") as caught:
        prepared(tmp_path, "http://127.0.0.1:9")
    assert caught.value.fix == "delete it: it is downloaded again"


@pytest.mark.parametrize(
    ("mirror", "says"),
    [
        ("http://a..b", r"http://a\.\.b"),
        ("ftp://hub", "ftp:/hub: no such folder"),
        ("~nobody-here/x", "~nobody-here"),
        ("nowhere", "nowhere: no such folder"),
    ],
)
def test_what_is_no_mirror_is_said(tmp_path: Path, mirror: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        prepared(tmp_path, mirror)


def test_the_source_says_what_it_is() -> None:
    source = ClimbmixSource(3, Path("/nowhere"))
    assert [file.name for file in source.files] == [shard_name(number) for number in range(3)]
    assert [file.name for file in source.held_out] == ["shard_06542.parquet"]
