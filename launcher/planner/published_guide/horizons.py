"""The guide's second table: how long d12 and d8 train."""

from __future__ import annotations

from collections.abc import Iterator

from launcher.planner.horizons import count_horizon, optimal_tokens
from launcher.planner.public_runs import optimum_range, upstream_sweep
from launcher.planner.published_guide.claim import (
    Claim,
    Holds,
    compare_claim,
    digits,
    guide_figure,
    shipped,
)
from launcher.planner.published_guide.logged import rtx4070_d12_resumed
from launcher.planner.published_guide.sizes import short, short_of
from nanochat.scaling import TOKENS_PER_SCALING_PARAMETER

CHINCHILLA = 20.0  # tokens per parameter, of all parameters (arXiv 2203.15556)


def horizon_claims() -> Iterator[Claim]:
    d12, d8 = _horizon("d12"), _horizon("d8")
    yield compare_claim(
        "horizons, heading",
        "from scaling laws",
        d12["tokens"],
        optimal_tokens(shipped("d12").model),
        "tokens",
        f"d12's is {digits(d12['of_optimal'])} times what the scaling laws give, "
        f"d8's {digits(d8['of_optimal'])} times",
    )
    yield _product("d12", "200k x 65,536 = 13.1B")
    yield _ratio("d12")
    low, high = optimum_range()
    yield compare_claim(
        "horizons, d12: optimum",
        "~20",
        CHINCHILLA,
        TOKENS_PER_SCALING_PARAMETER,
        "tokens per parameter",
        f"by nanochat's own scaling parameters (matrices and head); {low:g} to {high:g} in "
        f"{upstream_sweep().source}",
    )
    last, best = rtx4070_d12_resumed().last, rtx4070_d12_resumed().best
    yield compare_claim(
        "horizons, d12: val_bpb",
        "0.853",
        guide_figure("d12", "val_bpb"),
        last.val_bpb,
        "bits per byte",
        f"the end of a run that had {best.val_bpb:.3f} at {short_of(best.tokens or 0)} tokens",
    )
    yield _product("d8", "5,000 x 32,768 = 164M")
    yield _ratio("d8")
    yield compare_claim(
        "horizons, d8: very undertrained",
        "very undertrained",
        guide_figure("d8", "tokens_per_parameter") / CHINCHILLA,
        d8["of_optimal"],
        "of the optimum",
        f"undertrained, but a third of the optimum and not a tenth: "
        f"{digits(d8['per_scaling_parameter'])} tokens per scaling parameter of "
        f"{TOKENS_PER_SCALING_PARAMETER:g}",
        Holds.ONLY_IF,
    )


def _horizon(name: str) -> dict[str, float]:
    """Counted with exact parameters."""
    tokens = guide_figure(name, "steps") * guide_figure(name, "tokens_per_step")
    return count_horizon(round(tokens), shipped(name).model)


def _product(name: str, quote: str) -> Claim:
    return compare_claim(
        f"horizons, {name}: tokens",
        quote,
        guide_figure(name, "tokens"),
        _horizon(name)["tokens"],
        "tokens",
        "steps x tokens per step",
    )


def _ratio(name: str) -> Claim:
    guide, found = guide_figure(name, "tokens_per_parameter"), _horizon(name)
    return compare_claim(
        f"horizons, {name}: tokens per parameter",
        f"{guide:g}",
        guide,
        found["per_parameter"],
        "tokens per parameter",
        f"of all {short(guide_figure(name, 'parameters'))} that the guide counts; "
        f"{digits(found['per_scaling_parameter'])} of matrices and head, upstream's convention",
    )
