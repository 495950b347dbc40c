"""Our model on fixed weights gives what upstream's own code gave on them.

golden/upstream.json is written by tests/bench/equality.py --keep, from karpathy/nanochat of July
2026. The bounds are those of the bench: other machines add in another order.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fixed
import pytest

from nanochat.generate import generate
from nanochat.tokenizer import Tokenizer

LOSS_BOUND, GRADIENT_BOUND = 1e-5, 1e-4


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    kept: dict[str, Any] = json.loads((Path(__file__).parent / "golden/upstream.json").read_text())
    return kept


def test_loss_and_gradients_are_upstreams(golden: dict[str, Any]) -> None:
    model, rows = fixed.model(), fixed.rows()
    loss = model(rows[:, :-1], rows[:, 1:], denominator=rows[:, 1:].numel())
    loss.backward()
    assert loss.item() == pytest.approx(golden["loss"], rel=LOSS_BOUND)
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    traces = fixed.traces(gradients)
    assert traces.keys() == golden["gradients"].keys()
    for name, (norm, along) in golden["gradients"].items():
        assert traces[name] == pytest.approx([norm, along], abs=GRADIENT_BOUND * norm), name


def test_greedy_text_is_upstreams(golden: dict[str, Any]) -> None:
    tokenizer = Tokenizer([bytes([byte]) for byte in range(256)], fixed.CONFIG.vocab_size)
    ids = generate(fixed.model(), fixed.PROMPT, max_tokens=fixed.TEXT_TOKENS, temperature=0)
    assert tokenizer.decode(list(ids)) == golden["text"]
