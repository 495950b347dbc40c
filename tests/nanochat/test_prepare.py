"""Text -> rows on disk: what is held out, what is reused, and what happens when it goes wrong."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.atomic_write import write_atomically
from nanochat.dataset import PreparedData, encoding, split_writer
from nanochat.dataset.packing import count_rows
from nanochat.dataset.prepare import prepare
from nanochat.dataset.sources import Source, parse_source
from nanochat.dataset.stdlib_source import StdlibSource
from nanochat.errors import DataError

VOCAB_SIZE = 512
SEQUENCE_LENGTH = 64


@pytest.fixture(scope="module")
def documents() -> list[str]:
    """2,000 pieces of the standard library, no two alike."""
    source = StdlibSource()
    pieces = (document.text for document in source.documents(source.files[:200]))
    return list(dict.fromkeys(pieces))[:2000]


def run(source: Source, cache: Path, **changes: Any) -> PreparedData:
    options: dict[str, Any] = {
        "sequence_length": SEQUENCE_LENGTH,
        "vocab_size": VOCAB_SIZE,
        "validation": None,
        "threads": 2,
        "on_progress": lambda stage, done, total: None,
    }
    return prepare(source, cache=cache, **{**options, **changes})


def jsonl(path: Path, texts: list[str]) -> Source:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return parse_source(f"files:{path}", path.parent)


def parquet(path: Path, texts: list[str]) -> None:
    pq.write_table(pa.table({"text": texts}), path)


def all_ids(data: PreparedData) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    train, validation = data.train_rows, data.validation_rows
    return train.batch(range(len(train))), validation.batch(range(len(validation)))


def starts(data: PreparedData, rows: np.ndarray[Any, Any]) -> set[tuple[int, ...]]:
    """The first 8 ids of every document in `rows` that has as many."""
    bos = data.tokenizer.bos_id
    parts = [row[1:] for row in rows]
    texts = [part for row in parts for part in np.split(row, np.flatnonzero(row == bos))]
    return {tuple(text[text != bos][:8].tolist()) for text in texts if (text != bos).sum() >= 8}


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_rows_hold_the_text_and_the_manifest_describes_them(
    documents: list[str], tmp_path: Path
) -> None:
    data = run(jsonl(tmp_path / "a.jsonl", documents), tmp_path / "cache")
    manifest = data.manifest
    train, validation = all_ids(data)
    assert train.shape == (manifest.train.rows, SEQUENCE_LENGTH + 1)
    assert validation.shape == (manifest.validation.rows, SEQUENCE_LENGTH + 1)
    assert (train[:, 0] == data.tokenizer.bos_id).all()
    assert train.max() < VOCAB_SIZE
    first_row = data.tokenizer.decode(train[0][1:])
    assert any(document.startswith(first_row.split("<|bos|>")[0]) for document in documents)

    for part in (manifest.train, manifest.validation):
        assert part.tokens == part.rows * (SEQUENCE_LENGTH + 1)
        for block in part.blocks:
            content = (data.path / block.name).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (
                block.bytes,
                block.sha256,
            )
    assert manifest.train.documents + manifest.validation.documents == len(documents)
    size = sum(len(document.encode()) for document in documents)
    assert manifest.train.bytes + manifest.validation.bytes == size
    ids = sum(len(data.tokenizer.encode(document)) for document in documents)
    placed = manifest.train.tokens + manifest.validation.tokens
    cropped = manifest.train.cropped_tokens + manifest.validation.cropped_tokens
    assert placed + cropped == ids + len(documents)  # a BOS each
    data.ensure_blocks(data.manifest.blocks)


def test_continuous_text_is_kept_but_for_the_crops(documents: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(documents))
    data = run(parse_source("files:*.txt", tmp_path), tmp_path / "cache")
    train = data.manifest.train
    assert train.cropped_tokens < 0.01 * train.tokens


def test_one_document_in_a_hundred_is_held_out_by_its_hash(
    documents: list[str], tmp_path: Path
) -> None:
    data = run(jsonl(tmp_path / "a.jsonl", documents), tmp_path / "cache")
    chosen = {
        text for text in documents if int(hashlib.sha256(text.encode()).hexdigest(), 16) % 100 == 0
    }
    assert data.manifest.validation.documents == len(chosen)
    assert data.manifest.validation.bytes == sum(len(text.encode()) for text in chosen)
    train, validation = all_ids(data)
    expected = {tuple(data.tokenizer.encode(text)[:8]) for text in chosen}
    assert starts(data, validation) <= expected
    assert len(starts(data, train) & expected) < 0.5 * len(expected)  # some share a first line


def test_of_a_small_text_as_much_is_held_out_as_two_rows_take(
    documents: list[str], tmp_path: Path
) -> None:
    by_hash = sorted(documents[:20], key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    few = [t for t in by_hash if int(hashlib.sha256(t.encode()).hexdigest(), 16) % 100]
    data = run(jsonl(tmp_path / "a.jsonl", few), tmp_path / "cache")
    moved = data.manifest.validation.documents
    assert len(data.validation_rows) == 2
    assert data.manifest.validation.bytes == sum(len(text.encode()) for text in few[:moved])


def test_a_single_text_file_gives_two_rows_and_keeps_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A short text. " * 60)
    data = run(parse_source("files:*.txt", tmp_path), tmp_path / "cache", vocab_size=300)
    assert len(data.validation_rows) == 2
    assert len(data.train_rows) >= 1


def test_the_last_of_several_parquet_files_is_held_out(
    documents: list[str], tmp_path: Path
) -> None:
    for i, name in enumerate("cab"):
        parquet(tmp_path / f"{name}.parquet", documents[i * 100 : (i + 1) * 100])
    data = run(parse_source("files:*.parquet", tmp_path), tmp_path / "cache")
    manifest = data.manifest
    assert [file.name for file in manifest.train.files] == ["a.parquet", "b.parquet"]
    assert [file.name for file in manifest.validation.files] == ["c.parquet"]
    assert (manifest.train.documents, manifest.validation.documents) == (200, 100)


def test_a_validation_source_is_taken_as_it_is(documents: list[str], tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", documents[:200])
    held_out = jsonl(tmp_path / "b.jsonl", documents[200:230])
    data = run(source, tmp_path / "cache", validation=held_out)
    assert (data.manifest.train.documents, data.manifest.validation.documents) == (200, 30)
    assert data.identity() != run(source, tmp_path / "cache").identity()


@pytest.mark.parametrize(
    ("train", "validation", "says"),
    [
        (["tiny"], None, "the text is too small: 4 bytes"),
        (["words and words " * 3], None, "3 rows of 64 tokens need about"),
        ([], None, "the text is empty"),
        (["x y z " * 500], ["tiny"], "the validation text is too small: 4 bytes"),
        (["tiny"], ["x y z " * 500] * 2, "the training text is too small: 4 bytes"),
    ],
)
def test_too_little_text_is_refused_with_how_much_is_needed(
    tmp_path: Path, train: list[str], validation: list[str] | None, says: str
) -> None:
    source = jsonl(tmp_path / "a.jsonl", train)
    held_out = None if validation is None else jsonl(tmp_path / "b.jsonl", validation)
    with pytest.raises(DataError, match=says):
        run(source, tmp_path / "cache", validation=held_out)
    assert not any(path.is_dir() for path in (tmp_path / "cache" / "prepared").iterdir())


def test_text_is_written_block_by_block(
    documents: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "PORTION_BYTES", 500_000)
    monkeypatch.setattr(split_writer, "ROWS_PER_BLOCK", 100)
    data = run(jsonl(tmp_path / "a.jsonl", documents), tmp_path / "cache")
    blocks = data.manifest.train.blocks
    assert [block.name for block in blocks] == [f"train-{i:05d}.rows" for i in range(len(blocks))]
    assert {block.rows for block in blocks[:-1]} == {100}
    assert len(blocks) > 10
    assert data.train_rows.block_rows == tuple(block.rows for block in blocks)


def test_few_documents_of_a_last_parquet_file_come_round_as_upstream_deals_them(
    documents: list[str], tmp_path: Path
) -> None:
    """Its buffer of 1,000 holds each of 60 documents 17 times; best fit takes the longest."""
    held_out = documents[300:360]
    parquet(tmp_path / "a.parquet", documents[:300])
    parquet(tmp_path / "b.parquet", held_out)
    data = run(parse_source("files:*.parquet", tmp_path), tmp_path / "cache")
    _, validation = all_ids(data)
    encoded = [data.tokenizer.encode(document) for document in held_out]
    assert len(validation) == count_rows([np.array(ids) for ids in encoded], SEQUENCE_LENGTH + 1)
    longest = max((ids for ids in encoded if len(ids) <= SEQUENCE_LENGTH), key=len)
    assert validation[0][1 : 1 + len(longest)].tolist() == longest
    assert len(starts(data, validation)) < 0.5 * len(held_out)


def test_a_validation_source_of_its_own_is_read_once(documents: list[str], tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", documents[:300])
    held_out = documents[300:360]
    data = run(source, tmp_path / "cache", validation=jsonl(tmp_path / "b.jsonl", held_out))
    _, validation = all_ids(data)
    assert len(np.unique(validation, axis=0)) == len(validation)
    expected = {tuple(data.tokenizer.encode(text)[:8]) for text in held_out}
    assert len(starts(data, validation) & expected) > 0.9 * len(expected)


def test_the_same_files_chosen_by_hand_are_other_rows(documents: list[str], tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", documents[:300])
    parquet(tmp_path / "b.parquet", documents[300:360])
    cache = tmp_path / "cache"
    chosen = run(parse_source("files:*.parquet", tmp_path), cache)
    by_hand = parse_source("files:b.parquet", tmp_path)
    given = run(parse_source("files:a.parquet", tmp_path), cache, validation=by_hand)
    assert given.identity() != chosen.identity()
    assert all_ids(given)[0].tolist() == all_ids(chosen)[0].tolist()
    assert all_ids(given)[1].tolist() != all_ids(chosen)[1].tolist()


def test_many_validation_documents_are_all_packed(documents: list[str], tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", documents[:300])
    parquet(tmp_path / "b.parquet", documents[300:1800])
    data = run(parse_source("files:*.parquet", tmp_path), tmp_path / "cache")
    ids = [np.array(data.tokenizer.encode(text)) for text in documents[300:1800]]
    assert len(data.validation_rows) == count_rows(ids, SEQUENCE_LENGTH + 1)
    assert data.manifest.validation.documents == 1500


def test_a_file_in_both_texts_is_refused(documents: list[str], tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", documents[:300])
    again = jsonl(tmp_path / "copy.jsonl", documents[:300])
    with pytest.raises(DataError, match=r"copy\.jsonl: in the text to train on and"):
        run(source, tmp_path / "cache", validation=again)


def test_stretches_are_shuffled_anew_in_every_portion_and_documents_stay() -> None:
    def document(number: int, continuous: bool) -> encoding.Encoded:
        return encoding.Encoded(np.array([number]), continuous, 1, number)

    portion = [document(number, number % 3 > 0) for number in range(60)]
    orders = [
        [each.digest for each in encoding.shuffled_stretches(portion, number)] for number in (0, 1)
    ]
    assert orders[0] != orders[1]
    for order in orders:
        assert sorted(order) == list(range(60))
        assert order != sorted(order)
        assert order[::3] == list(range(0, 60, 3))


def test_the_tokenizer_learns_from_the_start_of_long_documents(tmp_path: Path) -> None:
    long = "abcd " * 2_000 + "zqzq " * 20_000
    source = jsonl(tmp_path / "a.jsonl", [f"{number} {long}" for number in range(8)])
    data = run(source, tmp_path / "cache", sequence_length=16)
    assert len(data.tokenizer.encode("abcd abcd")) < len(data.tokenizer.encode("zqzq zqzq"))


def test_what_is_prepared_is_reused_and_only_that(documents: list[str], tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", documents[:300])
    cache = tmp_path / "cache"
    first_stages: list[str] = []
    again_stages: list[str] = []
    first = run(source, cache, on_progress=lambda stage, *_: first_stages.append(stage))
    again = run(source, cache, on_progress=lambda stage, *_: again_stages.append(stage))
    assert list(dict.fromkeys(first_stages)) == ["hash", "tokenizer", "pack"]
    assert list(dict.fromkeys(again_stages)) == ["hash"]
    assert again.identity() == first.identity()

    assert run(source, cache, sequence_length=32).path != first.path
    assert run(source, cache, vocab_size=400).path != first.path
    changed = jsonl(tmp_path / "a.jsonl", documents[:301])
    assert run(changed, cache).path != first.path


def test_preparation_is_deterministic(documents: list[str], tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", documents)
    one = run(source, tmp_path / "one", threads=1)
    two = run(source, tmp_path / "two", threads=3)
    assert files_of(one.path) == files_of(two.path)


@pytest.mark.parametrize("damage", ["shorten", "manifest", "missing"])
def test_damaged_data_is_refused_by_load_and_prepared_again(
    documents: list[str], tmp_path: Path, damage: str
) -> None:
    source = jsonl(tmp_path / "a.jsonl", documents[:300])
    data = run(source, tmp_path / "cache")
    before = files_of(data.path)
    block = data.path / "train-00000.rows"
    if damage == "shorten":
        block.write_bytes(before[block.name][:-2])
    elif damage == "manifest":
        (data.path / "manifest.json").write_text("{}")
    else:
        block.unlink()
    with pytest.raises(DataError, match="damaged"):
        PreparedData.load(data.path)
    assert files_of(run(source, tmp_path / "cache").path) == before


def test_a_changed_byte_is_found_when_its_block_is_needed(
    documents: list[str], tmp_path: Path
) -> None:
    data = run(jsonl(tmp_path / "a.jsonl", documents[:300]), tmp_path / "cache")
    block = data.path / "validation-00000.rows"
    content = block.read_bytes()
    block.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    PreparedData.load(data.path).ensure_blocks(data.manifest.train.blocks)
    with pytest.raises(DataError, match=r"validation-00000\.rows: damaged"):
        PreparedData.load(data.path).ensure_blocks(data.manifest.validation.blocks)


def test_a_full_disk_is_named_and_leaves_nothing(
    documents: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        if path.name == "validation-00000.rows":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomically(path, data)

    monkeypatch.setattr(split_writer, "write_atomically", full)
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match=r"cache.*No space left on device; [\d,]+ bytes are free"):
        run(jsonl(tmp_path / "a.jsonl", documents[:300]), cache)
    assert not any(path.is_dir() for path in (cache / "prepared").iterdir())


def test_two_processes_at_once_do_the_work_once(documents: list[str], tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", documents)
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        results = pool.map(stages_of_a_run, [tmp_path, tmp_path], chunksize=1)
    packed = [stages for stages, _ in results if "pack" in stages]
    assert len(packed) == 1
    assert results[0][1] == results[1][1]
    data = PreparedData.load(Path(results[0][1]))
    data.ensure_blocks(data.manifest.blocks)
    assert not [path for path in data.path.iterdir() if path.name.endswith(".partial")]


def stages_of_a_run(folder: Path) -> tuple[set[str], str]:
    stages: set[str] = set()
    source = parse_source("files:a.jsonl", folder)
    data = run(source, folder / "cache", on_progress=lambda stage, *_: stages.add(stage))
    return stages, str(data.path)
