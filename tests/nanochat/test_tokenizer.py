"""Byte-level BPE: lossless, deterministic, nine special ids at the end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nanochat.dataset.stdlib_source import StdlibSource
from nanochat.errors import DataError
from nanochat.tokenizer import SPECIAL_TOKENS, StreamDecoder, Tokenizer

VOCAB_SIZE = 600
ODD_TEXTS = [
    "",
    "plain",
    "naïve — Größe, 漢字, 😀👩‍🚀, \x00\x1b\r\n\t",
    "<|bos|> is text here <|output_end|>",
    "1234567 tokens of 2 digits",
    "it's we'll THEY'RE",
    "   \n\n  indented\n",
]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    source = StdlibSource()
    return [document.text for document in source.documents(source.files[:60])]


@pytest.fixture(scope="module")
def tokenizer(texts: list[str]) -> Tokenizer:
    return Tokenizer.train(texts, VOCAB_SIZE)


def test_vocabulary_is_bytes_then_merges_then_the_nine_special_tokens(tokenizer: Tokenizer) -> None:
    assert [tokenizer.decode_bytes([i]) for i in range(256)] == [bytes([i]) for i in range(256)]
    assert len(set(tokenizer.tokens)) == len(tokenizer.tokens) == VOCAB_SIZE - 9
    assert tokenizer.bos_id == VOCAB_SIZE - 9
    assert [tokenizer.decode([i]) for i in range(VOCAB_SIZE - 9, VOCAB_SIZE)] == list(
        SPECIAL_TOKENS
    )


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_decoding_gives_the_text_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert max(ids, default=0) < tokenizer.bos_id


def test_merges_shorten_real_text(tokenizer: Tokenizer, texts: list[str]) -> None:
    sizes = [len(text.encode()) for text in texts]
    tokens = [len(tokenizer.encode(text)) for text in texts]
    assert sum(tokens) < 0.6 * sum(sizes)


def test_an_array_holds_the_same_ids(tokenizer: Tokenizer, texts: list[str]) -> None:
    for text in [*texts[:20], *ODD_TEXTS, "".join(SPECIAL_TOKENS)]:
        assert tokenizer.encode_array(text).tolist() == tokenizer.encode(text)


def test_a_million_spaces_do_not_stop_training_or_encoding() -> None:
    text = "a" + " " * 1_000_000 + "b"
    tokenizer = Tokenizer.train([text], 300)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode_array(text).tolist()) == text


def test_digits_are_split_in_twos_and_words_keep_one_space(tokenizer: Tokenizer) -> None:
    long_runs = [t for t in tokenizer.tokens if t.isdigit() and len(t) > 2]
    assert long_runs == []
    assert b" self" in tokenizer.tokens


def test_token_bytes_count_text_and_nothing_else(tokenizer: Tokenizer) -> None:
    sizes = tokenizer.token_bytes()
    assert (sizes.shape, sizes.dtype) == ((VOCAB_SIZE,), np.int32)
    for text in ODD_TEXTS:
        assert sizes[tokenizer.encode(text)].sum() == len(text.encode())
    assert sizes[tokenizer.bos_id :].tolist() == [0] * 9


def test_text_too_small_for_the_vocabulary_leaves_a_gap_below_the_special_ids() -> None:
    tokenizer = Tokenizer.train(["ab ab ab"], 1000)
    used = len(tokenizer.tokens)
    assert 256 < used < 300
    assert tokenizer.bos_id == 991
    assert tokenizer.vocab_size == len(tokenizer.token_bytes()) == 1000
    assert tokenizer.token_bytes()[used:].tolist() == [0] * (1000 - used)
    assert tokenizer.decode_bytes([used, 990]) == b""
    assert tokenizer.decode(tokenizer.encode("ab ab")) == "ab ab"


@pytest.mark.parametrize("text", ["half \ud83d of a pair", "\udc00", "joined \ud83d\ude00"])
def test_lone_surrogates_do_not_stop_training_or_encoding(text: str) -> None:
    tokenizer = Tokenizer.train([text, "some text"], 300)
    expected = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert tokenizer.decode(tokenizer.encode(text)) == expected


def test_training_stops_at_max_characters(texts: list[str]) -> None:
    whole = "".join(texts)
    some = Tokenizer.train([whole[:5000]], VOCAB_SIZE)
    assert Tokenizer.train([whole], VOCAB_SIZE, max_characters=5000).tokens == some.tokens
    assert Tokenizer.train([whole], VOCAB_SIZE).tokens != some.tokens


def test_vocabulary_without_room_for_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 265"):
        Tokenizer.train(["text"], 264)


def test_saved_bytes_are_deterministic_and_load_back(
    tokenizer: Tokenizer, texts: list[str], tmp_path: Path
) -> None:
    first, second = tmp_path / "a" / "tokenizer.json", tmp_path / "b.json"
    tokenizer.save(first)
    Tokenizer.train(texts, VOCAB_SIZE).save(second)
    loaded = Tokenizer.load(first)
    assert first.read_bytes() == second.read_bytes()
    assert loaded.sha256 == tokenizer.sha256
    assert loaded.encode(texts[0]) == tokenizer.encode(texts[0])
    assert [path.name for path in first.parent.iterdir()] == ["tokenizer.json"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "other"),
        ("version", 2),
        ("special_tokens", ["<|bos|>"]),
        ("tokens", ["AA=="]),
        ("tokens", ["not base64!"]),
        ("vocab_size", 300),
        ("vocab_size", "600"),
        ("pattern", None),
    ],
)
def test_a_damaged_file_is_refused_with_its_path(
    tokenizer: Tokenizer, tmp_path: Path, key: str, value: object
) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        Tokenizer.load(path)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff\xfe"])
def test_what_is_no_tokenizer_is_refused_with_its_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        Tokenizer.load(path)
    with pytest.raises(DataError, match="missing"):
        Tokenizer.load(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("data", "pushed", "flushed"),
    [
        (b"ab", ["a", "b"], ""),
        ("é".encode(), ["", "é"], ""),
        ("😀!".encode(), ["", "", "", "😀", "!"], ""),
        (b"a\xffb", ["a", "�", "b"], ""),
        (b"\xc3x", ["", "�x"], ""),
        ("😀".encode()[:3], ["", "", ""], "�"),
    ],
)
def test_streaming_yields_whole_characters_only(
    tokenizer: Tokenizer, data: bytes, pushed: list[str], flushed: str
) -> None:
    decoder = StreamDecoder(tokenizer)
    assert [decoder.push(byte) for byte in data] == pushed
    assert decoder.flush() == flushed
