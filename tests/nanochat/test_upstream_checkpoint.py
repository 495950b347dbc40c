"""Upstream's files: what is written is read back, and what is hostile or wrong is refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import torch
from tiny import equal, lively, shape

from nanochat.dataset import PreparedData
from nanochat.errors import DataError
from nanochat.tokenizer import SPECIAL_TOKENS
from nanochat.upstream_checkpoint import UpstreamModel, read, read_tokenizer, write


@pytest.fixture
def base(data: PreparedData, tmp_path: Path) -> Path:
    config = shape(vocab_size=data.tokenizer.vocab_size, window_pattern="SL")
    model = UpstreamModel(config, lively(config).state_dict(), data.tokenizer, 123, 1.5)
    write(tmp_path / "base", "d2", model, tokens_per_step=2048)
    return tmp_path / "base"


def test_what_is_written_is_read_back(base: Path, data: PreparedData) -> None:
    for folder in (base, base / "base_checkpoints" / "d2"):
        found = read(folder)
        config = shape(vocab_size=data.tokenizer.vocab_size, window_pattern="SL")
        assert (found.config, found.step, found.val_bpb) == (config, 123, 1.5)
        assert equal(found.tensors, lively(config).state_dict())
        assert found.tokenizer.sha256 == data.tokenizer.sha256


def test_the_tokenizer_is_tiktokens_to_upstream(base: Path, data: PreparedData) -> None:
    """As its get_tokenizer and get_token_bytes read it."""
    # Upstream unpickles this file, so that is what has to work; this test has written it.
    encoding = pickle.loads((base / "tokenizer" / "tokenizer.pkl").read_bytes())
    assert isinstance(encoding, tiktoken.Encoding)
    assert (encoding.n_vocab, encoding.name) == (data.tokenizer.vocab_size, "rustbpe")
    text = "def f(x):\n    return x + 12345  # Größe"
    assert encoding.encode_ordinary(text) == data.tokenizer.encode(text)
    assert encoding.encode_single_token("<|bos|>") == data.tokenizer.bos_id
    token_bytes = torch.load(base / "tokenizer" / "token_bytes.pt", weights_only=True)
    assert torch.equal(token_bytes, torch.from_numpy(data.tokenizer.token_bytes()))
    assert token_bytes.dtype == torch.int32


class Hostile:
    """Calls what it likes when it is unpickled."""

    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> Any:
        function, *arguments = self._call
        return function, tuple(arguments)


@pytest.mark.parametrize("where", ["whole", "inside"])
def test_a_hostile_tokenizer_is_refused_and_does_nothing(tmp_path: Path, where: str) -> None:
    sign = tmp_path / "sign"
    hostile: Any = Hostile(os.system, f"touch {sign}")
    path = tmp_path / "tokenizer.pkl"
    path.write_bytes(pickle.dumps(hostile if where == "whole" else {"mergeable_ranks": hostile}))
    with pytest.raises(DataError, match=r"it asks for \w+\.system"):
        read_tokenizer(path)
    assert not sign.exists()


def pickled_encoding(state: Any) -> bytes:
    """tiktoken's Encoding in a pickle, with any state: made by hand, for its class refuses most."""
    body = pickle.dumps(state, protocol=3)[2:-1]
    return b"\x80\x03ctiktoken.core\nEncoding\n)\x81" + body + b"b."


RANKS = {bytes([n]): n for n in range(256)}
SPECIAL = {name: 256 + n for n, name in enumerate(SPECIAL_TOKENS)}
STATE = {"name": "x", "pat_str": ".", "mergeable_ranks": RANKS, "special_tokens": SPECIAL}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("cl100k_base", "no Encoding with its own tokens"),  # would load plugins, and download
        ({"pat_str": "."}, "mergeable_ranks"),
        (STATE | {"mergeable_ranks": RANKS | {b"ab": 300}}, "not numbered through"),
        (STATE | {"mergeable_ranks": {b"ab": 0}}, "not the single bytes"),
        (STATE | {"mergeable_ranks": {"a": 0}}, "not bytes"),
        (STATE | {"special_tokens": {"<|endoftext|>": 256}}, "not nanochat's"),
        (STATE | {"special_tokens": SPECIAL | {"<|bos|>": 3}}, "not the last ones"),
        (STATE | {"pat_str": 7}, "pattern is not a string"),
    ],
)  # fmt: skip
def test_another_encoding_is_refused(tmp_path: Path, state: Any, said: str) -> None:
    path = tmp_path / "tokenizer.pkl"
    path.write_bytes(pickled_encoding(STATE))
    assert read_tokenizer(path).vocab_size == 265
    path.write_bytes(pickled_encoding(state))
    with pytest.raises(DataError, match=said):
        read_tokenizer(path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"cos\nsystem\n(S'id'\ntR.", b"[]", b"N."])
def test_no_pickle_of_an_encoding_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"not upstream's tokenizer"):
        read_tokenizer(path)


def damage_weights(base: Path) -> None:
    path = base / "base_checkpoints" / "d2" / "model_000123.pt"
    tensors = torch.load(path, weights_only=True)
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:5]
    torch.save(tensors, path)


def hostile_weights(base: Path) -> None:
    path = base / "base_checkpoints" / "d2" / "model_000123.pt"
    torch.save({"lm_head.weight": Hostile(os.system, "touch /tmp/never")}, path)


def other_width(base: Path) -> None:
    path = base / "base_checkpoints" / "d2" / "meta_000123.json"
    meta = json.loads(path.read_text())
    meta["model_config"]["n_embd"] = 256
    path.write_text(json.dumps(meta))


def other_tokenizer(base: Path) -> None:
    (base / "tokenizer" / "tokenizer.pkl").write_bytes(pickled_encoding(STATE))


def second_tag(base: Path) -> None:
    (base / "base_checkpoints" / "d3").mkdir()


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (damage_weights, "not the parameters of this architecture: lm_head.weight"),
        (hostile_weights, "not weights of torch"),
        (other_width, "width 256 is not 128"),
        (other_tokenizer, "a vocabulary of 512, the tokenizer beside it one of 265"),
        (second_tag, "d2, d3 in base_checkpoints/"),
        (lambda base: shutil.rmtree(base / "base_checkpoints"), "neither config.json nor base"),
        (lambda base: shutil.rmtree(base / "tokenizer"), "cannot read the tokenizer"),
    ],
)
def test_what_is_wrong_is_named(base: Path, act: Callable[[Path], None], said: str) -> None:
    act(base)
    with pytest.raises(DataError, match=said):
        read(base)
    assert not Path("/tmp/never").exists()
