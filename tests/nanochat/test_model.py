"""The model: its parameters, what each position sees, and where it starts."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import VOCAB_SIZE, ids, lively, shape
from torch import Tensor

from nanochat import sizes
from nanochat.model import GPT, norm, rotate
from nanochat.sizes import ModelConfig, parameter_counts, parameter_shapes


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(depth=4, head_dim=64),
        ModelConfig(depth=1, head_dim=64),
        ModelConfig(depth=3, head_dim=128, vocab_size=500),
        ModelConfig(depth=12, window_pattern="SSSL"),
    ],
)
def test_parameters_are_those_of_the_sizing_table(config: ModelConfig) -> None:
    state = GPT.empty(config, device="meta").state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == parameter_shapes(config)
    assert not [name for name in state if "cos" in name or "sin" in name]


@pytest.mark.parametrize(
    ("depth", "head_dim", "total"), [(4, 64, 36_700_290), (8, 128, 125_829_354)]
)
def test_totals(depth: int, head_dim: int, total: int) -> None:
    config = ModelConfig(depth=depth, head_dim=head_dim)
    model = GPT.empty(config, device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == total
    assert parameter_counts(config).total == total


def test_the_seed_decides_the_weights() -> None:
    first, again, other = (GPT.build(shape(), seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name in first if first[name].unique().numel() > 10]
    assert {"transformer.wte.weight", "lm_head.weight", "value_embeds.1.weight"} < set(drawn)
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


def test_first_values_are_upstreams() -> None:
    model = GPT.build(shape(depth=6), seed=0)
    bound = math.sqrt(3 / 384)  # of a uniform draw whose standard deviation is 384^-0.5
    ranges = {
        ".attn.c_q.": (-bound, bound),
        ".attn.c_k.": (-bound, bound),
        ".attn.c_v.": (-bound, bound),
        ".mlp.c_fc.": (-0.4 * bound, 0.4 * bound),
        ".c_proj.": (0.0, 0.0),
        "value_embeds.": (-bound, bound),
        ".ve_gate.": (0.0, 0.02),
        "smear_gate.": (0.0, 0.02),
    }
    spreads = {"transformer.wte.": 0.8, "lm_head.": 0.001}
    scalars = {
        "resid_lambdas": [1.15, 1.13, 1.11, 1.09, 1.07, 1.05],
        "x0_lambdas": [0.20, 0.17, 0.14, 0.11, 0.08, 0.05],
        "smear_lambda": [0.0],
        "backout_lambda": [0.2],
    }
    for name, parameter in model.named_parameters():
        if name in scalars:
            assert parameter.tolist() == pytest.approx(scalars[name], abs=1e-6), name
        elif spread := next((s for part, s in spreads.items() if part in name), None):
            assert parameter.std().item() == pytest.approx(spread, rel=0.02), name
            assert parameter.abs().max().item() > 3 * spread, name  # normal, not uniform
        else:
            low, high = next(pair for part, pair in ranges.items() if part in name)
            found = parameter.min().item(), parameter.max().item()
            # The largest of n draws misses the end of the range by 1 / n of it on average.
            assert found == pytest.approx((low, high), abs=10 * (high - low) / parameter.numel())
            assert low <= found[0] and found[1] <= high, name


def test_a_fresh_model_guesses_evenly() -> None:
    model = GPT.build(shape(), seed=0)
    tokens = ids(8, 33)
    loss = model(tokens[:, :-1], tokens[:, 1:], denominator=8 * 32)
    assert loss.item() == pytest.approx(math.log(VOCAB_SIZE), rel=0.01)


def test_every_parameter_has_a_part_in_the_loss() -> None:
    model = lively(shape(depth=3, vocab_size=500))  # of 2 layers backout would change nothing
    tokens = ids(4, 33, vocab_size=500)
    model(tokens[:, :-1], tokens[:, 1:], denominator=4 * 32).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 1e-5, name


@pytest.mark.parametrize(("depth", "middle"), [(1, 0), (5, 2), (6, 3)])
def test_backout_takes_the_output_of_the_middle_layer_off(depth: int, middle: int) -> None:
    model = lively(shape(depth=depth))
    outputs: list[Tensor] = []
    for block in model.transformer["h"].children():
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with torch.no_grad():
        hidden = model.hidden(ids(2, 32))
        expected = norm(outputs[-1] - model.backout_lambda * outputs[middle])
    torch.testing.assert_close(hidden, expected)


@pytest.mark.parametrize(
    ("pattern", "depth", "length", "windows"),
    [
        ("L", 3, 2048, [2048] * 3),
        ("SSSL", 6, 2048, [512, 512, 512, 2048, 512, 2048]),
        ("S", 2, 520, [256, 520]),  # a quarter, rounded up to 128; the last layer sees all
    ],
)
def test_windows(pattern: str, depth: int, length: int, windows: list[int]) -> None:
    config = ModelConfig(depth=depth, sequence_length=length, window_pattern=pattern)
    assert config.windows == windows


def changed_positions(model: GPT, tokens: Tensor, place: int) -> list[int]:
    """Positions whose hidden state differs, by however little, when one token is another one."""
    other = tokens.clone()
    other[0, place] = (other[0, place] + 1) % VOCAB_SIZE
    with torch.no_grad():
        difference = (model.hidden(tokens) - model.hidden(other)).abs().sum(-1)[0]
    return difference.nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("pattern", "reach"),
    [
        ("S", 8 + 32 + 1),  # a layer of 8, the last of 32, and the smear's one
        ("L", 32 + 32 + 1),
    ],
)
def test_a_token_is_seen_from_its_own_place_to_the_reach_of_the_windows(
    monkeypatch: pytest.MonkeyPatch, pattern: str, reach: int
) -> None:
    monkeypatch.setattr(sizes, "WINDOW_MULTIPLE", 8)
    model = lively(shape(window_pattern=pattern))
    tokens = ids(1, 90)
    for place in (0, 3, 50, 89):
        stop = min(place + reach + 1, 90)
        assert changed_positions(model, tokens, place) == list(range(place, stop))


def test_short_windows_of_upstreams_size_limit_what_is_seen() -> None:
    model = lively(shape(window_pattern="S", sequence_length=256))
    assert changed_positions(model, ids(1, 500), 10)[-1] == 10 + 128 + 256 + 1


def test_rotation_depends_on_the_distance_alone() -> None:
    model = GPT.build(shape(head_dim=64), seed=0)
    q, k = torch.randn(2, 1, 1, 1, 64, generator=torch.Generator().manual_seed(0))

    def score(i: int, j: int) -> float:
        turned = [rotate(x, model.cos[:, p], model.sin[:, p]) for x, p in ((q, i), (k, j))]
        return (turned[0] * turned[1]).sum().item()

    for distance in (0, 1, 7, 30):
        expected = score(distance, 0)
        for start in (1, 5, 100, 250):
            assert score(start + distance, start) == pytest.approx(expected, abs=1e-4)
    assert abs(score(5, 0) - score(6, 0)) > 0.01
    assert score(0, 0) == pytest.approx((q * k).sum().item(), abs=1e-5)


def test_rotation_turns_each_pair_by_minus_its_angle() -> None:
    """Halves as real and imaginary part: times exp(-i theta)."""
    model = GPT.build(shape(head_dim=64), seed=0)
    x = torch.randn(1, 20, 1, 64, generator=torch.Generator().manual_seed(0))
    frequencies = 100_000.0 ** -(torch.arange(32, dtype=torch.float64) / 32)
    angles = torch.arange(20, dtype=torch.float64)[:, None] * frequencies
    turned = torch.complex(*x.double().chunk(2, dim=-1))[0, :, 0] * torch.exp(-1j * angles)
    expected = torch.cat((turned.real, turned.imag), dim=-1)
    torch.testing.assert_close(
        rotate(x, model.cos[:, :20], model.sin[:, :20])[0, :, 0].double(), expected,
        atol=1e-5, rtol=0,
    )  # fmt: skip


def test_bfloat16_positions_are_rounded_only_after_cos_and_sin() -> None:
    config = shape(sequence_length=512)  # bfloat16 has not every integer above 256
    exact, rounded = GPT.empty(config), GPT.empty(config, dtype=torch.bfloat16)
    assert torch.equal(rounded.cos, exact.cos.bfloat16())
    assert torch.equal(rounded.sin, exact.sin.bfloat16())


def test_nats_and_loss_agree() -> None:
    model = lively(shape())
    tokens = ids(3, 33)
    nats = model.nats(tokens[:, :-1], tokens[:, 1:])
    loss = model(tokens[:, :-1], tokens[:, 1:], denominator=96)
    assert (nats.shape, nats.dtype) == ((3, 32), torch.float32)
    assert loss.item() == pytest.approx(nats.mean().item(), rel=1e-6)


def test_bfloat16_model_is_close_to_the_float32_one() -> None:
    tokens = ids(2, 33)
    losses = [
        GPT.build(shape(), seed=0, dtype=dtype)(tokens[:, :-1], tokens[:, 1:], denominator=64)
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert losses[1].dtype == torch.float32
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.01)
