"""Text token by token: the cache changes the speed only, and streaming never splits a character."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from tiny import ids, lively, shape

from nanochat import sizes
from nanochat.dataset import PreparedData
from nanochat.generate import generate, stream_text
from nanochat.kv_cache import KVCache
from nanochat.model import GPT

TOKENS = 80  # two and a half times the sequence length


@pytest.mark.parametrize(
    ("pattern", "depth"),
    [("L", 2), ("SSSL", 5)],  # short windows are 8 tokens, long ones 32
)
@pytest.mark.parametrize("at_once", [1, 5, 40, 80])
def test_cached_logits_are_the_uncached_ones(
    monkeypatch: pytest.MonkeyPatch, pattern: str, depth: int, at_once: int
) -> None:
    monkeypatch.setattr(sizes, "WINDOW_MULTIPLE", 8)
    model = lively(shape(depth=depth, window_pattern=pattern))
    tokens = ids(2, TOKENS)
    cache = KVCache(model.config, TOKENS, batch=2)
    for end in range(at_once, TOKENS + 1, at_once):
        cached = model.logits(tokens[:, end - at_once : end], cache)
        torch.testing.assert_close(cached, model.logits(tokens[:, :end]), atol=1e-5, rtol=0)
    assert cache.length == TOKENS


def test_a_long_prompt_then_single_tokens() -> None:
    model = lively(shape())
    tokens = ids(1, TOKENS)
    cache = KVCache(model.config, TOKENS)
    for start, end in [(0, 37), *((place, place + 1) for place in range(37, TOKENS))]:
        cached = model.logits(tokens[:, start:end], cache)
        torch.testing.assert_close(cached, model.logits(tokens[:, :end]), atol=1e-5, rtol=0)


def test_temperature_0_takes_the_likeliest_and_top_1_is_the_same() -> None:
    model = lively(shape())
    prompt = [7, 8, 9]
    text = list(prompt)
    for _ in range(40):
        text.append(int(model.logits(torch.tensor([text])).argmax()))
    for options in ({"temperature": 0.0}, {"temperature": 0.7, "top_k": 1, "seed": 5}):
        assert list(generate(model, prompt, max_tokens=40, **options)) == text[3:]


def test_the_seed_decides_the_draws() -> None:
    model = lively(shape())
    texts = [list(generate(model, [7], max_tokens=30, seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]
    assert all(0 <= token < 512 for token in texts[0])


def test_padding_is_never_drawn() -> None:
    model = GPT.build(shape(vocab_size=270), seed=0)  # of 320 rows; all ids are about equal
    drawn = {token for seed in (1, 2) for token in generate(model, [7], max_tokens=300, seed=seed)}
    assert len(drawn) > 200
    assert max(drawn) < 270


@pytest.mark.parametrize(("top_k", "temperature"), [(3, 1.0), (None, 0.5), (1000, 2.0)])
def test_draws_follow_temperature_and_top_k(top_k: int | None, temperature: float) -> None:
    model = lively(shape())
    logits = model.logits(torch.tensor([[7]]))[0]
    if top_k == 3:
        logits = logits.where(logits >= logits.topk(3).values[-1], -torch.inf)
    expected = F.softmax(logits / temperature, dim=-1)
    drawn = torch.zeros(512)
    for seed in range(200):
        options = {"temperature": temperature, "top_k": top_k, "seed": seed}
        drawn[next(iter(generate(model, [7], max_tokens=1, **options)))] += 1 / 200
    assert (drawn > 0)[expected == 0].sum() == 0
    likeliest = expected.argmax()
    spread = (expected[likeliest] * (1 - expected[likeliest]) / 200).sqrt()
    assert abs(drawn[likeliest] - expected[likeliest]) < 4 * spread + 1e-6


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "length"),
    [(5, 0, 0), (5, 7, 7), (5, 1000, 315), (319, 1000, 1), (320, 10, 0), (400, 10, 0)],
)
def test_text_ends_where_positions_end(prompt: int, max_tokens: int, length: int) -> None:
    model = lively(shape())
    assert model.positions == 320
    assert len(list(generate(model, [1] * prompt, max_tokens=max_tokens))) == length


def test_streaming_yields_whole_characters(data: PreparedData) -> None:
    model = lively(shape())
    tokenizer = data.tokenizer
    for seed in range(3):
        prompt = [tokenizer.bos_id, *tokenizer.encode("def ")]
        tokens = list(generate(model, prompt, max_tokens=60, seed=seed))
        tokens = list(itertools.takewhile(lambda token: token != tokenizer.bos_id, tokens))
        pieces = list(stream_text(model, tokenizer, "def ", max_tokens=60, seed=seed))
        assert "".join(pieces) == tokenizer.decode(tokens)


def test_a_character_of_four_tokens_comes_whole_and_a_new_document_ends_the_text(
    data: PreparedData,
) -> None:
    """A fresh model's layers add nothing yet: the head alone can teach it who follows whom."""
    tokenizer = data.tokenizer
    saying = [*b"a", *"😀!".encode(), tokenizer.bos_id, *b"never"]
    model = GPT.build(shape(), seed=0)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        for token, follower in itertools.pairwise(saying):
            model.lm_head.weight[follower] = model.hidden(torch.tensor([[token]]))[0, 0]
    pieces = list(stream_text(model, tokenizer, "a", max_tokens=20, temperature=0))
    assert pieces == ["", "", "", "😀", "!", ""]
    cut = list(stream_text(model, tokenizer, "a", max_tokens=2, temperature=0))
    assert cut == ["", "", "\N{REPLACEMENT CHARACTER}"]
