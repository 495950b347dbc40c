"""Muon and AdamW: which parameter goes how fast, the schedules, and state that can be saved."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tiny import ids, lively, shape
from torch import Tensor

from nanochat.model import GPT
from nanochat.optimizer.adamw import GROUPS
from nanochat.optimizer.muon import POLAR_EXPRESS, muon_update, orthogonalise, variance_shape
from nanochat.optimizer.muon_adamw import RESIDUAL_SCALES, MuonAdamW
from nanochat.optimizer.schedule import Schedule
from nanochat.scaling import muon_weight_decay, size_ratio
from nanochat.sizes import ModelConfig

SCHEDULE = Schedule(steps=20, warmup_steps=2)
Array = npt.NDArray[np.float64]


def random(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))


def take_gradient(model: GPT, step: int) -> None:
    tokens = ids(2, 33, seed=step)
    model(tokens[:, :-1], tokens[:, 1:], denominator=64).backward()


def optimizer_of(model: GPT) -> MuonAdamW:
    return MuonAdamW(model, tokens_per_step=2**17, schedule=SCHEDULE)


@pytest.mark.parametrize("sizes", [(64, 64), (256, 64), (64, 256), (3, 32, 128), (4, 12)])
def test_orthogonalised_matrices_have_singular_values_near_one(sizes: tuple[int, ...]) -> None:
    u, s, v = torch.linalg.svd(random(*sizes), full_matrices=False)
    spread = u * torch.logspace(-2, 0, s.size(-1)) @ v
    values = torch.linalg.svdvals(orthogonalise(spread))
    assert values.min() > 0.5
    assert values.max() < 1.5


def test_orthogonalising_keeps_the_singular_vectors_of_equal_rows() -> None:
    """A matrix of orthogonal rows, however long each, is already the answer but for the lengths."""
    basis = torch.linalg.qr(random(64, 16)).Q.T
    result = orthogonalise(basis * torch.logspace(-3, 3, 16).unsqueeze(1))
    torch.testing.assert_close(result / result.norm(dim=1, keepdim=True), basis, atol=1e-3, rtol=0)


class SlowMuon:
    """The Muon step as its papers have it, one matrix, float64."""

    def __init__(self, rows: int, columns: int) -> None:
        self.buffer = np.zeros((rows, columns))
        self.variance = np.zeros(rows if rows >= columns else columns)

    def step(
        self, weight: Array, gradient: Array, rate: float, momentum: float, decay: float
    ) -> Array:
        rows, columns = weight.shape
        self.buffer = momentum * self.buffer + (1 - momentum) * gradient
        x = momentum * self.buffer + (1 - momentum) * gradient  # Nesterov
        for row in x:
            row /= np.sqrt((row**2).sum())  # every row as long as the others
        x /= 1.01 * np.sqrt((x**2).sum())
        for a, b, c in POLAR_EXPRESS:
            u, s, v = np.linalg.svd(x, full_matrices=False)
            x = u @ np.diag(a * s + b * s**3 + c * s**5) @ v
        x *= np.sqrt(min(rows, columns)) / np.sqrt((x**2).sum())
        size = np.sqrt((x**2).sum())
        axis = 1 if rows >= columns else 0
        self.variance = 0.9 * self.variance + 0.1 * (x**2).mean(axis=axis)
        x = x / np.expand_dims(np.sqrt(self.variance), axis)
        x *= size / np.sqrt((x**2).sum())
        rate *= math.sqrt(max(1, rows / columns))
        decayed = np.where(x * weight >= 0, 1 - rate * decay, 1.0)
        return weight * decayed - rate * x


@pytest.mark.parametrize("sizes", [(24, 24), (48, 12), (12, 48)])
def test_a_muon_step_is_that_of_the_papers(sizes: tuple[int, int]) -> None:
    weight, momentum = random(*sizes).double(), torch.zeros(sizes, dtype=torch.float64)
    variance = torch.zeros(variance_shape(*sizes), dtype=torch.float64)
    slow, expected = SlowMuon(*sizes), weight.numpy().copy()
    for step in range(1, 4):
        gradient = random(*sizes, seed=step).double()
        expected = slow.step(expected, gradient.numpy(), 0.1, 0.9, 0.5)
        muon_update(
            weight, gradient, momentum, variance,
            learning_rate=0.1, momentum=0.9, weight_decay=0.5, low_precision=False,
        )  # fmt: skip
        np.testing.assert_allclose(weight.numpy(), expected, atol=1e-6)


def test_a_muon_step_in_bfloat16_is_near_that_of_the_papers() -> None:
    start, momentum = random(24, 24), torch.zeros(24, 24)
    weight, variance = start.clone(), torch.zeros(variance_shape(24, 24))
    slow, expected = SlowMuon(24, 24), start.double().numpy()
    for step in range(1, 4):
        gradient = random(24, 24, seed=step)
        expected = slow.step(expected, gradient.double().numpy(), 0.1, 0.9, 0.5)
        muon_update(
            weight, gradient, momentum, variance,
            learning_rate=0.1, momentum=0.9, weight_decay=0.5, low_precision=True,
        )  # fmt: skip
    moved = torch.from_numpy(expected) - start
    error = (weight - start - moved).norm() / moved.norm()
    assert error.item() < 0.15  # 0.07; without Nesterov's look ahead 0.39


def test_matrices_follow_the_schedule_of_rate_momentum_and_decay() -> None:
    model = lively(shape(depth=1)).double()
    schedule = Schedule(steps=1000, warmup_steps=40)
    optimizer = MuonAdamW(model, tokens_per_step=2**17, schedule=schedule)
    decay = muon_weight_decay(model.config, 2**17)
    matrices = {n: p for n, p in model.named_parameters() if n.startswith("transformer.h.")}
    slow = {name: SlowMuon(*matrix.shape) for name, matrix in matrices.items()}
    expected = {name: matrix.detach().numpy().copy() for name, matrix in matrices.items()}
    for step in (0, 200, 600):
        for number, parameter in enumerate(model.parameters()):
            parameter.grad = random(*parameter.shape, seed=1000 * number + step).double()
        for name, matrix in matrices.items():
            assert matrix.grad is not None
            expected[name] = slow[name].step(
                expected[name],
                matrix.grad.numpy().copy(),
                0.02 * 0.5 * schedule.learning_rate(step),
                schedule.momentum(step),
                decay * schedule.weight_decay(step),
            )
        optimizer.step(step)
    for name, matrix in matrices.items():
        np.testing.assert_allclose(matrix.detach().numpy(), expected[name], atol=1e-6)


def test_weight_decay_acts_only_where_update_and_weight_agree_in_sign() -> None:
    start, rate, decay = random(32, 32), 0.1, 0.5
    ends = []
    for weight_decay in (0.0, decay):
        weight = start.clone()
        muon_update(
            weight, random(32, 32, seed=1), torch.zeros(32, 32), torch.zeros(32, 1),
            learning_rate=rate, momentum=0.9, weight_decay=weight_decay, low_precision=False,
        )  # fmt: skip
        ends.append(weight)
    update = start - ends[0]
    expected = torch.where(update * start >= 0, rate * decay * start, 0.0)
    torch.testing.assert_close(ends[0] - ends[1], expected, atol=1e-6, rtol=0)
    assert 0.3 < (expected != 0).float().mean() < 0.7


@pytest.mark.parametrize(
    ("config", "tokens_per_step", "by_width", "by_batch"),
    [
        (shape(depth=4, head_dim=64), 2_048, math.sqrt(3), 1 / 16),
        (shape(depth=1, head_dim=768), 524_288, 1.0, 1.0),  # as wide as d12
        (shape(depth=1, head_dim=1536), 524_288, math.sqrt(0.5), 1.0),  # as wide as d24
    ],
)
def test_every_parameter_has_one_rate(
    config: ModelConfig, tokens_per_step: int, by_width: float, by_batch: float
) -> None:
    model = GPT.empty(config, device="meta")
    optimizer = MuonAdamW(model, tokens_per_step=tokens_per_step, schedule=Schedule(100, 0))
    groups = [
        ("transformer.h.", 0.02 * by_batch),
        ("lm_head.", 0.008 * by_width * by_batch),
        ("transformer.wte.", 0.3 * by_width * by_batch),
        ("value_embeds.", 0.15 * by_width * by_batch),
        ("resid_lambdas", 0.005 * by_batch),
        ("x0_lambdas", 0.5 * by_batch),
        (("smear_gate.", "smear_lambda", "backout_lambda"), 0.2),
    ]
    expected = {
        name: rate
        for name, _ in model.named_parameters()
        for prefix, rate in groups
        if name.startswith(prefix)
    }
    rates = [(n, group.peak_rate) for group in optimizer._adamw for n in group.parameters]
    rates += [(name, optimizer._matrix_rate) for name in optimizer._matrices]
    assert sorted(name for name, _ in rates) == sorted(n for n, _ in model.named_parameters())
    assert dict(rates) == pytest.approx(expected)


def test_the_rates_of_a_step_follow_the_schedule() -> None:
    """AdamW's first update of a parameter is its rate, whatever the size of the gradient."""
    for step, fraction in ((0, 0.5), (1, 1.0), (19, 1 / 13 * 0.95 + 0.05)):
        model = lively(shape(depth=3))
        optimizer = optimizer_of(model)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        take_gradient(model, step)
        assert optimizer.step(step) == pytest.approx(0.02 * 0.5 * fraction)
        for name, rate in (("x0_lambdas", 0.25), ("smear_lambda", 0.2), ("backout_lambda", 0.2)):
            moved = (model.get_parameter(name) - before[name]).abs()
            assert moved.tolist() == pytest.approx([rate * fraction] * len(moved), rel=1e-3)
        assert all(parameter.grad is None for parameter in model.parameters())


def residual_scales(model: GPT) -> dict[str, Tensor]:
    return {name: model.get_parameter(name) for name in RESIDUAL_SCALES}


def test_the_first_gradient_of_residual_scales_is_rounding_and_epsilon() -> None:
    """It shrinks with both, by nine digits from float32 to float64; any other gradient stays."""
    sizes = []
    for dtype in (torch.float32, torch.float64):
        model = GPT.build(shape(depth=3), seed=0, dtype=dtype).to(dtype)
        take_gradient(model, 0)
        others = model.lm_head.weight.grad
        assert others is not None and others.norm() > 0.01
        gradients = [scale.grad for scale in residual_scales(model).values()]
        sizes.append(max(g.abs().max().item() for g in gradients if g is not None))
    assert sizes[0] < 1e-7 and sizes[1] < 1e-15


def test_residual_scales_of_a_fresh_model_begin_with_the_second_update() -> None:
    model = GPT.build(shape(depth=3), seed=0)
    optimizer = optimizer_of(model)
    before = {name: scale.detach().clone() for name, scale in residual_scales(model).items()}
    take_gradient(model, 0)
    optimizer.step(0)
    weight_decay = 2e-4  # takes less than this part of a scale; an update moves it further
    for name, scale in residual_scales(model).items():
        torch.testing.assert_close(scale.detach(), before[name], rtol=weight_decay, atol=0)
    take_gradient(model, 1)
    optimizer.step(1)
    for name, scale in residual_scales(model).items():
        assert ((scale / before[name] - 1).abs() > weight_decay).all(), name


@pytest.mark.parametrize(
    ("depth", "head_dim", "log2_tokens_per_step", "expected", "places"),
    [
        (4, 64, 18, 1.89, 2),
        (8, 128, 18, 0.52, 2),
        (12, 128, 19, 0.28, 2),
        (20, 128, 20, 0.100, 3),
        (24, 128, 20, 0.060, 3),
    ],
)
def test_weight_decay_is_upstreams(
    depth: int, head_dim: int, log2_tokens_per_step: int, expected: float, places: int
) -> None:
    config = ModelConfig(depth=depth, head_dim=head_dim)
    assert round(muon_weight_decay(config, 2**log2_tokens_per_step), places) == expected


def test_a_size_is_compared_with_the_reference_of_its_own_vocabulary() -> None:
    d4 = 4 * 12 * 256**2 + 4096 * 256
    d12 = 12 * 12 * 768**2 + 4096 * 768
    config = ModelConfig(depth=4, head_dim=64, vocab_size=4096)
    assert size_ratio(config) == pytest.approx(d4 / d12, rel=1e-3)  # gates are left out


@pytest.mark.parametrize(
    ("step", "rate", "momentum", "decay"),
    [
        # 1,000 steps, of which 40 warm up and 650 warm down
        (0, 0.025, 0.85, 1.0),
        (19, 0.5, 0.8557, 0.9991),
        (39, 1.0, 0.8617, 0.9962),
        (40, 1.0, 0.8620, 0.9961),
        (200, 1.0, 0.91, 0.9045),
        (350, 1.0, 0.955, 0.7270),
        (399, 0.9284, 0.9697, 0.6560),
        (400, 0.9269, 0.9646, 0.6545),
        (675, 0.525, 0.935, 0.2388),
        (999, 0.0515, 0.9001, 0.0),
        (1000, 0.05, 0.90, 0.0),
    ],
)
def test_schedule(step: int, rate: float, momentum: float, decay: float) -> None:
    schedule = Schedule(steps=1000, warmup_steps=40)
    values = (schedule.learning_rate(step), schedule.momentum(step), schedule.weight_decay(step))
    assert values == pytest.approx((rate, momentum, decay), abs=6e-5)


def test_momentum_stays_at_its_peak_between_warm_up_and_warm_down() -> None:
    schedule = Schedule(steps=10_000, warmup_steps=0)
    assert {schedule.momentum(step) for step in (400, 2000, 3499)} == {0.97}
    assert schedule.momentum(3500) == pytest.approx(0.97)
    assert schedule.momentum(9999) == pytest.approx(0.90, abs=1e-4)
    assert schedule.learning_rate(0) == 1.0


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_runs_have_schedules(steps: int) -> None:
    schedule = Schedule(steps=steps, warmup_steps=0)
    for step in range(steps):
        assert 0.05 <= schedule.learning_rate(step) <= 1.0
        assert 0.85 <= schedule.momentum(step) <= 0.97


@pytest.mark.parametrize("steps_before", [0, 3])
def test_a_saved_state_goes_on_bit_for_bit(steps_before: int) -> None:
    model = lively(shape())
    optimizer = optimizer_of(model)
    for step in range(steps_before):
        take_gradient(model, step)
        optimizer.step(step)
    saved = {name: tensor.clone() for name, tensor in optimizer.state_tensors().items()}
    other = GPT.empty(shape())
    other.load_state_dict(model.state_dict())
    resumed = optimizer_of(other)
    resumed.load_state_tensors(saved)
    for step in range(steps_before, steps_before + 2):
        for each, its_optimizer in ((model, optimizer), (other, resumed)):
            take_gradient(each, step)
            its_optimizer.step(step)
    assert_equal(model.state_dict(), other.state_dict())
    assert_equal(optimizer.state_tensors(), resumed.state_tensors())


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_a_state_with_a_tensor_missing_is_refused() -> None:
    optimizer = optimizer_of(lively(shape()))
    tensors = optimizer.state_tensors()
    del tensors["muon.variance.transformer.h.0.attn.c_q.weight"]
    with pytest.raises(KeyError, match="c_q"):
        optimizer.load_state_tensors(tensors)


def test_every_group_is_updated_as_torch_s_adamw_would() -> None:
    model = lively(shape(depth=3))
    optimizer = optimizer_of(model)
    others = {
        name: parameter.detach().clone().requires_grad_()
        for name, parameter in model.named_parameters()
        if not name.startswith("transformer.h.")
    }
    reference = torch.optim.AdamW(
        [
            {
                "params": [others[name] for name in group.parameters],
                "peak": group.peak_rate,
                "betas": settings.betas,
                "weight_decay": settings.weight_decay,
            }
            for group, settings in zip(optimizer._adamw, GROUPS, strict=True)
        ],
        eps=1e-10,
        fused=True,
    )
    for step in range(4):
        take_gradient(model, step)
        for name, parameter in others.items():
            gradient = model.get_parameter(name).grad
            assert gradient is not None
            parameter.grad = gradient.clone()
        for settings in reference.param_groups:
            settings["lr"] = settings["peak"] * optimizer.schedule.learning_rate(step)
        reference.step()
        optimizer.step(step)
        assert all(torch.equal(model.get_parameter(name), p) for name, p in others.items())


def test_adamw_s_betas_and_decays_are_upstreams() -> None:
    assert {group.prefixes[0]: (*group.betas, group.weight_decay) for group in GROUPS} == {
        "lm_head.": (0.8, 0.96, 0.01),
        "transformer.wte.": (0.8, 0.995, 0.001),
        "value_embeds.": (0.8, 0.995, 0.01),
        "resid_lambdas": (0.8, 0.95, 0.05),
        "x0_lambdas": (0.96, 0.95, 0.0),
        "smear_": (0.8, 0.95, 0.0),
    }
