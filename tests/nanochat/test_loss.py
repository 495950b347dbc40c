"""The fused head and loss against plain softcap and cross_entropy, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nanochat import loss
from nanochat.loss import head_nats, mean_head_loss

DIM = 16


def problem(
    tokens: int, vocab_size: int, padded: int, dim: int = DIM
) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, a head whose logits reach well into the softcap, targets."""
    generator = torch.Generator().manual_seed(tokens)
    x = torch.randn(tokens, dim, generator=generator, dtype=torch.float64)
    weight = 3 * torch.randn(padded, dim, generator=generator, dtype=torch.float64)
    targets = torch.randint(vocab_size, (tokens,), generator=generator)
    return x.requires_grad_(), weight.requires_grad_(), targets


def plain_nats(x: Tensor, weight: Tensor, targets: Tensor, vocab_size: int) -> Tensor:
    logits = 15 * torch.tanh(x @ weight[:vocab_size].T / 15)
    return F.cross_entropy(logits, targets, reduction="none")


def relative_error(value: Tensor, expected: Tensor) -> float:
    return ((value - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("chunk", [1, 7, 20, 21, 64])
@pytest.mark.parametrize(("vocab_size", "padded"), [(128, 128), (100, 128)])
@pytest.mark.parametrize("grad_output", [1.0, -2.5])
def test_value_and_gradients(
    monkeypatch: pytest.MonkeyPatch, chunk: int, vocab_size: int, padded: int, grad_output: float
) -> None:
    monkeypatch.setattr(loss, "CHUNK_TOKENS", {"cpu": chunk})
    x, weight, targets = problem(21, vocab_size, padded)
    expected = plain_nats(x, weight, targets, vocab_size).sum() / 50
    expected_x, expected_weight = torch.autograd.grad(grad_output * expected, (x, weight))
    value = mean_head_loss(x, weight, targets, 50, vocab_size)
    grad_x, grad_weight = torch.autograd.grad(grad_output * value, (x, weight))
    assert relative_error(value, expected) < 1e-12
    assert relative_error(grad_x, expected_x) < 1e-12
    assert relative_error(grad_weight, expected_weight) < 1e-12
    assert not grad_weight[vocab_size:].any()


@pytest.mark.parametrize(("vocab_size", "padded"), [(128, 128), (100, 128)])
def test_nats_of_each_token(monkeypatch: pytest.MonkeyPatch, vocab_size: int, padded: int) -> None:
    monkeypatch.setattr(loss, "CHUNK_TOKENS", {"cpu": 8})
    x, weight, targets = problem(21, vocab_size, padded)
    nats = head_nats(x, weight, targets, vocab_size)
    torch.testing.assert_close(
        nats, plain_nats(x, weight, targets, vocab_size), rtol=1e-12, atol=1e-12
    )


def test_float32_is_close_to_float64() -> None:
    x, weight, targets = problem(300, 1000, 1024)
    expected = plain_nats(x, weight, targets, 1000).mean()
    grads = torch.autograd.grad(expected, (x, weight))
    x32, weight32 = (t.detach().float().requires_grad_() for t in (x, weight))
    value = mean_head_loss(x32, weight32, targets, 300, 1000)
    grads32 = torch.autograd.grad(value, (x32, weight32))
    assert value.dtype == torch.float32
    assert relative_error(value.double(), expected) < 1e-6
    for grad32, grad in zip(grads32, grads, strict=True):
        assert relative_error(grad32.double(), grad) < 1e-6


def test_bfloat16_states_with_a_float32_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK_TOKENS", {"cpu": 24})
    x, weight, targets = problem(64, 128, 128)
    expected = plain_nats(x, weight, targets, 128).mean()
    x16 = x.detach().bfloat16().requires_grad_()
    weight32 = weight.detach().float().requires_grad_()
    value = mean_head_loss(x16, weight32, targets, 64, 128)
    value.backward()
    assert (value.dtype, x16.grad.dtype, weight32.grad.dtype) == (
        torch.float32,
        torch.bfloat16,
        torch.float32,
    )
    grads = torch.autograd.grad(expected, (x, weight))
    assert relative_error(value.double(), expected) < 0.02
    assert relative_error(x16.grad.double(), grads[0]) < 0.03
    assert relative_error(weight32.grad.double(), grads[1]) < 0.03


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self.numel = max([self.numel, *sizes])
        return out


def test_the_logits_of_all_tokens_are_never_there(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, vocab, chunk = 64, 512, 8
    monkeypatch.setattr(loss, "CHUNK_TOKENS", {"cpu": chunk})
    x, weight, targets = problem(tokens, vocab, vocab, dim=4)
    with Largest() as fused:
        mean_head_loss(x, weight, targets, tokens, vocab).backward()
        head_nats(x, weight, targets, vocab)
    with Largest() as plain:
        plain_nats(x, weight, targets, vocab).mean().backward()
    assert fused.numel == chunk * vocab
    assert plain.numel == tokens * vocab
