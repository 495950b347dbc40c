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
from nanochat.model import GPT

ROWS = (1, 2, 5)


def measured(
    data: PreparedData,
    max_tokens: int,
    *,
    model: GPT | None = None,
    rank: int = 0,
    world_size: int = 1,
    weights: list[float] | None = None,
    micro_batch: int = 2,
    sample_tokens: int | None = None,
) -> float:
    return evaluate_bits_per_byte(
        model or lively(shape()),
        data.validation_rows,
        torch.from_numpy(data.tokenizer.token_bytes()),
        max_tokens=max_tokens,
        micro_batch=micro_batch,
        rank=rank,
        weights=weights or [1.0] * world_size,
        exchange=GradientExchange([], [], world_size),
        sample_tokens=sample_tokens,
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


def test_an_untrained_model_is_run_on_a_sample_and_measured_on_all_bytes(
    data: PreparedData,
) -> None:
    tokens, fresh = 10 * SEQUENCE_LENGTH, GPT.build(shape(), seed=0)
    everything = measured(data, tokens, model=fresh)
    sampled = measured(data, tokens, model=fresh, sample_tokens=3 * SEQUENCE_LENGTH)
    assert sampled == pytest.approx(everything, rel=2e-3)
    assert sampled != everything
    sample_alone = measured(data, 3 * SEQUENCE_LENGTH, model=fresh)
    assert abs(sample_alone - everything) > 3 * abs(sampled - everything)


def on_ranks(rank: int, world_size: int, path: Path) -> list[float]:
    data = PreparedData.load(path)
    figures = [
        measured(data, rows * SEQUENCE_LENGTH, rank=rank, world_size=world_size) for rows in ROWS
    ]
    sample = 3 * SEQUENCE_LENGTH  # of 5 rows: 2 and 1 for the ranks
    most = 5 * SEQUENCE_LENGTH
    return [
        *figures,
        measured(data, most, rank=rank, world_size=world_size, sample_tokens=sample),
    ]


def test_ranks_share_the_rows_and_the_result(data: PreparedData) -> None:
    """Of an odd number of rows one rank has one more, of a single one the other has none."""
    alone = on_ranks(0, 1, data.path)
    first, second = run_ranks(2, on_ranks, data.path)
    assert first == second
    assert first == pytest.approx(alone, rel=1e-6)
