"""Bits per byte against a computation by hand, for any number of ranks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from tiny import SEQUENCE_LENGTH, lively, shape

from nanochat.dataset import PreparedData
from nanochat.evaluate import evaluate_bits_per_byte
from nanochat.exchange import GradientExchange

ROWS = (1, 2, 5)


def measured(
    data: PreparedData, max_tokens: int, *, rank: int = 0, world_size: int = 1, micro_batch: int = 2
) -> float:
    return evaluate_bits_per_byte(
        lively(shape()),
        data.validation_rows,
        torch.from_numpy(data.tokenizer.token_bytes()),
        max_tokens=max_tokens,
        micro_batch=micro_batch,
        rank=rank,
        exchange=GradientExchange([], world_size),
    )


def by_hand(data: PreparedData, rows: int) -> tuple[float, int]:
    """Bits per byte of the first rows, token by token, and how many tokens had no bytes."""
    model, tokenizer = lively(shape()), data.tokenizer
    nats, size, left_out = 0.0, 0, 0
    for row in data.validation_rows.batch(range(rows)):
        with torch.no_grad():
            hidden = model.hidden(torch.from_numpy(row[None, :-1])).double()[0]
            logits = hidden @ model.lm_head.weight.double().T
        for z, target in zip(logits, row[1:].tolist(), strict=True):
            if target >= tokenizer.bos_id:
                left_out += 1
                continue
            capped = 15 * torch.tanh(z / 15)
            nats += (capped.logsumexp(0) - capped[target]).item()
            size += len(tokenizer.decode_bytes([target]))
    return nats / math.log(2) / size, left_out


@pytest.mark.parametrize(
    ("rows", "max_tokens"),
    [
        (5, 5 * SEQUENCE_LENGTH),
        (5, 6 * SEQUENCE_LENGTH - 1),
        (4, 5 * SEQUENCE_LENGTH - 1),
        (1, 1),  # one row at least
    ],
)
@pytest.mark.parametrize("micro_batch", [1, 2, 100])
def test_bits_per_byte(data: PreparedData, rows: int, max_tokens: int, micro_batch: int) -> None:
    expected, _ = by_hand(data, rows)
    value = measured(data, max_tokens, micro_batch=micro_batch)
    assert value == pytest.approx(expected, rel=1e-6)
    assert value != pytest.approx(by_hand(data, rows + 1)[0], rel=1e-4)


def test_no_more_rows_than_there_are(data: PreparedData) -> None:
    every = len(data.validation_rows)
    expected, left_out = by_hand(data, every)
    assert measured(data, 10**9, micro_batch=8) == pytest.approx(expected, rel=1e-6)
    assert left_out > 0  # the rows above hold beginnings of documents


def on_ranks(rank: int, world_size: int, path: Path) -> list[float]:
    data = PreparedData.load(path)
    return [
        measured(data, rows * SEQUENCE_LENGTH, rank=rank, world_size=world_size) for rows in ROWS
    ]


def test_ranks_share_the_rows_and_the_result(data: PreparedData) -> None:
    """Of an odd number of rows one rank has one more, of a single one the other has none."""
    alone = [measured(data, rows * SEQUENCE_LENGTH) for rows in ROWS]
    first, second = run_ranks(2, on_ranks, data.path)
    assert first == second
    assert first == pytest.approx(alone, rel=1e-6)
