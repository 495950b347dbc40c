"""Losses of d4 and d8, kept: a change to nanochat/ reproduces them or says why not.

The text is a stream of numbered words made here: frequencies by Zipf's law, and every second word
is the one that its predecessor calls for. To write the losses anew, after a change that is meant
to change them: `python tests/nanochat/test_golden_losses.py`.
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
from nanochat.dataset.rows import Rows
from nanochat.sizes import VOCAB_SIZE, ModelConfig
from nanochat.train_config import TrainConfig

KEPT = Path(__file__).with_name("golden") / "losses.json"
SHAPES = {
    "d4": ModelConfig(depth=4, head_dim=64, sequence_length=512),
    "d8": ModelConfig(depth=8, sequence_length=1024),
}
STEPS, TOKENS_PER_STEP = 5, 2048
# Another order of the same sums (ranks, threads) moves a loss by 1e-6 at most, 1% of learning rate
# the first step and by a few 1e-5 in the fifth; a wrong learning rate or scale by 1e-3 and more.
BOUND = 2e-5  # nats per token
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
    rows = Rows([64], lambda _: ids.reshape(64, length + 1).astype(np.uint16))
    token_bytes = np.full(VOCAB_SIZE, 5, np.int32)
    part = SimpleNamespace(blocks=[None], blocks_of=lambda rows: [], digest=lambda rows: "")
    text = SimpleNamespace(
        manifest=SimpleNamespace(complete=True, train=part, validation=part),
        bring=lambda blocks: None,
        train_rows=rows,
        validation_rows=rows,
        tokenizer=SimpleNamespace(token_bytes=lambda: token_bytes),
        identity=dict,
    )
    return cast(PreparedData, text)


def losses(rank: int, world_size: int, name: str) -> list[float]:
    config = TrainConfig(
        model=SHAPES[name], steps=STEPS, tokens_per_step=TOKENS_PER_STEP, warmup_steps=0
    )
    observer = Recorder()
    share: dict[str, Any] = {"rank": rank, "world_size": world_size, "saves": False}
    with tempfile.TemporaryDirectory() as folder:
        run(config, words(config.model.sequence_length), Path(folder), observer, **share)
    return observer.of("loss")


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("name", list(SHAPES))
def test_losses_are_those_that_were_kept(name: str, world_size: int) -> None:
    if world_size == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(2)
        found = [losses(0, 1, name)]
        torch.set_num_threads(threads)
    else:
        found = run_ranks(world_size, losses, name, limit_seconds=SECONDS)
    kept = json.loads(KEPT.read_text())[name]
    assert kept[0] - kept[-1] > 100 * BOUND  # they are losses of a model that learns
    for each in found:
        assert each == pytest.approx(kept, abs=BOUND)


if __name__ == "__main__":
    kept = {name: losses(0, 1, name) for name in SHAPES}
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps(kept, indent=1) + "\n")
