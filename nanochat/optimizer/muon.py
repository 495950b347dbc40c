"""Muon: momentum whose every update is replaced by the nearest orthogonal matrix.

The pieces and their sources, in the order of the step:
Nesterov momentum and orthogonalisation (Keller Jordan, Muon); row equilibration before it (MuonEq,
arXiv 2603.28254); Polar Express polynomials (arXiv 2505.16932) in place of Newton-Schulz; the
Frobenius norm of an exactly orthogonal matrix after it (Muon+, arXiv 2602.21545); a factored
variance per row or column (NorMuon, arXiv 2510.05491); cautious weight decay (only where the
update and the weight agree in sign).
"""

from __future__ import annotations

import torch
from torch import Tensor

# Coefficients (a, b, c) of x -> a x + b x^3 + c x^5, five steps, from the Polar Express paper.
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
NORM_MARGIN = 1.01  # the spectrum must start below 1 for the polynomials to converge
VARIANCE_BETA = 0.9
TINY = 1e-10


def variance_shape(rows: int, columns: int) -> tuple[int, int]:
    """One variance per row of a tall matrix, per column of a wide one."""
    return (rows, 1) if rows >= columns else (1, columns)


@torch.no_grad()
def muon_update(
    weight: Tensor,
    gradient: Tensor,
    momentum_buffer: Tensor,
    variance: Tensor,
    *,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
    low_precision: bool,
) -> None:
    """One step of matrices of equal shape, in place.

    weight, gradient, momentum_buffer: (..., rows, columns); variance: (..., *variance_shape);
    `gradient` is overwritten. `low_precision`: orthogonalise in bfloat16, as GPUs like it.
    """
    rows, columns = weight.shape[-2:]
    momentum_buffer.lerp_(gradient, 1 - momentum)
    update = gradient.lerp_(momentum_buffer, momentum)
    update = orthogonalise(update.bfloat16() if low_precision else update).to(weight.dtype)
    update *= min(rows, columns) ** 0.5 / _frobenius(update).clamp_min(1e-6)

    # Level the variance between rows (or columns) without changing the whole norm.
    along = -1 if rows >= columns else -2
    squares = update.square().mean(dim=along, keepdim=True)
    variance.lerp_(squares, 1 - VARIANCE_BETA)
    scale = variance.clamp_min(TINY).rsqrt()
    norm_before = squares.sum(dim=(-2, -1), keepdim=True).sqrt()
    norm_after = (squares * scale.square()).sum(dim=(-2, -1), keepdim=True).sqrt()
    update *= scale * (norm_before / norm_after.clamp_min(TINY))

    rate = learning_rate * max(1.0, rows / columns) ** 0.5
    agree = (update * weight) >= 0
    weight.mul_(1 - rate * weight_decay * agree).sub_(update, alpha=rate)


def orthogonalise(x: Tensor) -> Tensor:
    """(..., rows, columns) -> about the nearest matrix with orthonormal rows or columns.

    Singular values end within 0.5 to 1.5, enough for Muon; those that begin below 0.0006 of the
    Frobenius norm, few even in a square matrix, stay smaller. The product of the
    smaller side with itself is taken, so the cost is 5 x (4 min^2 max + 2 min^3) FLOPs.
    """
    row_norms = x.float().norm(dim=-1, keepdim=True).clamp_min(1e-6)
    x = x * (_frobenius(x.float()) / x.size(-2) ** 0.5 / row_norms).to(x.dtype)
    x = x / (_frobenius(x) * NORM_MARGIN + 1e-6)
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    for a, b, c in POLAR_EXPRESS:
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x


def _frobenius(x: Tensor) -> Tensor:
    return x.norm(dim=(-2, -1), keepdim=True)
