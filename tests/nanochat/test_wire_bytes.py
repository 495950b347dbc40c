"""Bytes that two ranks of d8 send in a step of real text, pinned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ranks import run_ranks

from nanochat.batch_split import split_rows
from nanochat.dataset.stdlib_source import StdlibSource
from nanochat.exchange import GradientExchange
from nanochat.model import GPT
from nanochat.sizes import ModelConfig, parameter_counts
from nanochat.tokenizer import Tokenizer

D8 = ModelConfig(depth=8, sequence_length=1024)
TEXT_BYTES = 4_000_000  # of the standard library's source


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 rows of 1,024 tokens of a vocabulary trained on the text that they are from."""
    text = ""
    for document in StdlibSource().documents():
        text += document.text
        if len(text) > TEXT_BYTES:
            break
    tokenizer = Tokenizer.train([text], D8.vocab_size)
    path = tmp_path_factory.mktemp("ids") / "ids.npy"
    start = len(text) // 2
    numbers = tokenizer.encode(text[start : start + 300_000])[: 32 * 1024]
    np.save(path, np.array(numbers).reshape(32, 1024))
    return path


def sent(rank: int, world_size: int, path: Path, tokens: int) -> int:
    """The exchange of a step whose gradients are cheap: bytes do not depend on their values."""
    rows = torch.from_numpy(np.load(path))[: tokens // D8.sequence_length]
    shares = [rows[share.start : share.stop] for share in split_rows(len(rows), [1.0] * world_size)]
    model = GPT.empty(D8)
    tables = set(model.lookup_tables())
    exchange = GradientExchange(model.parameters(), tables, world_size)
    exchange.open([share.unique() for share in shares])
    looked_up = [table[shares[rank].unique()].sum() for table in tables]
    dense = [parameter.sum() for parameter in model.parameters() if parameter not in tables]
    torch.stack([*looked_up, *dense]).sum().backward()
    exchange.finish()
    return exchange.wire_bytes


@pytest.mark.parametrize(("tokens", "most"), [(4096, 0.37), (32_768, 0.45)])
def test_d8_on_two_ranks(ids: Path, tokens: int, most: float) -> None:
    """Of a plain all-reduce of all gradients, which sends each of them once."""
    plain = 4 * parameter_counts(D8).total
    for wire_bytes in run_ranks(2, sent, ids, tokens):
        assert wire_bytes <= most * plain, wire_bytes / plain
