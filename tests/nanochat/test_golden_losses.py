"""Compare losses of d4 and d8 on fixed text with kept ones, within BOUND on every kind of CPU.

The text is a stream of numbered words made here: frequencies by Zipf's law, and every second word
is the one that its predecessor calls for.

If these tests fail on code that did not change, do not write the losses again: another kind of CPU
has found an error of rounding that grows. Run them with fewer instructions (instruction_sets.py),
look for the first step that differs, and report it with the CPU's model. After a change that is
meant to change the losses, write them again with `python tests/nanochat/test_golden_losses.py` and
say so in the commit. They were last written on an Intel Xeon with AVX-512 (2026-11-29).
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from ranks import run_ranks
from tiny import Recorder, run

from nanochat.dataset import PreparedData
from nanochat.dataset.rows import RowDataset
from nanochat.sizes import VOCAB_SIZE, ModelConfig
from nanochat.train_config import TrainConfig

KEPT = Path(__file__).with_name("golden") / "losses.json"
SHAPES = {
    "d4": ModelConfig(depth=4, head_dim=64, sequence_length=512),
    "d8": ModelConfig(depth=8, sequence_length=512),
}
STEPS = {"d4": 5, "d8": 3}
ROWS_PER_STEP = 2
# Another order of the same sums moves a loss by 1e-6 at most, one unit in the last place of a
# float32: seen with SSE, AVX2 and AVX-512, one thread and two, one rank and two. A rate that is
# wrong by 1% moves the fifth loss of d4 by 1e-3 (head), 7e-5 (embeddings), 8e-6 (smear, backout) or
# 6e-6 (matrices). test_optimizer.py holds the other rates, which move it by less than 1e-6.
BOUND = 5e-6  # nats per token
SECONDS = 300.0


def words(length: int) -> PreparedData:
    """What `train` needs of a prepared text, with rows of `length` words and the word after."""
    count = 64 * (length + 1)
    raw = np.random.Philox(np.random.SeedSequence(7)).random_raw(2 * count)
    uniform = (raw[:count] >> np.uint64(11)).astype(np.float64) / 2**53
    ids = (VOCAB_SIZE**uniform).astype(np.int64) - 1  # density 1 / rank
    follows = raw[count:] & np.uint64(1) == 1
    for place in np.flatnonzero(follows[1:]) + 1:
        ids[place] = (ids[place - 1] * 31 + 7) % VOCAB_SIZE
    rows = RowDataset([64], lambda _: ids.reshape(64, length + 1).astype(np.uint16))
    token_bytes = np.full(VOCAB_SIZE, 5, np.int32)
    part = SimpleNamespace(blocks=[None], blocks_of=lambda rows: [], digest=lambda rows: "")
    text = SimpleNamespace(
        manifest=SimpleNamespace(complete=True, train=part, validation=part),
        ensure_blocks=lambda blocks: None,
        train_rows=rows,
        validation_rows=rows,
        tokenizer=SimpleNamespace(token_bytes=lambda: token_bytes),
        identity=dict,
    )
    return cast(PreparedData, text)


def losses(rank: int, world_size: int, name: str, threads: int = 1) -> list[float]:
    """Train a fresh model for its STEPS and return its losses in nats."""
    model = SHAPES[name]
    config = TrainConfig(
        model=model,
        steps=STEPS[name],
        tokens_per_step=ROWS_PER_STEP * model.sequence_length,
        warmup_steps=0,
    )
    observer = Recorder()
    share: dict[str, Any] = {"rank": rank, "world_size": world_size, "saves": False}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with tempfile.TemporaryDirectory() as folder:
            run(config, words(model.sequence_length), Path(folder), observer, **share)
    finally:
        torch.set_num_threads(before)
    return observer.of("loss")


def assert_kept(name: str, found: list[float]) -> None:
    kept = json.loads(KEPT.read_text())[name]
    off = np.abs(np.subtract(found, kept)).max() / BOUND
    assert off <= 1, f"off by {off:,.1f} bounds: {found}, kept: {kept}"
    assert kept[0] - kept[-1] > 0.05  # losses that stand still would hold nothing


@pytest.mark.parametrize(("name", "threads"), [("d4", 1), ("d4", 2), ("d8", 1)])
def test_losses_of_one_rank(name: str, threads: int) -> None:
    assert_kept(name, losses(0, 1, name, threads))


def test_losses_of_two_ranks() -> None:
    for found in run_ranks(2, losses, "d4", limit_seconds=SECONDS):
        assert_kept("d4", found)


if __name__ == "__main__":
    KEPT.write_text(json.dumps({name: losses(0, 1, name) for name in SHAPES}, indent=1) + "\n")
