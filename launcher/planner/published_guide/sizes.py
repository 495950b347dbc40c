"""The guide's first table: sizes. Its last two columns stand in the table of CPU speeds again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from launcher.planner.horizons import optimal_tokens
from launcher.planner.public_runs import upstream_sweep
from launcher.planner.published_guide.claim import (
    Claim,
    Holds,
    compare_claim,
    digits,
    guide_figure,
    shipped,
)
from launcher.planner.published_guide.logged import cpu_d4, mi300x_d24, rtx4070_d8, speed
from launcher.planner.size_table import six_n
from nanochat.scaling import optimal_tokens_per_step, steps_for_tokens
from nanochat.sizes import (
    ModelConfig,
    attention_flops,
    flops_per_token,
    parameter_counts,
    state_bytes,
)

SIZE_NAMES = ("d4", "d8", "d12", "d20", "d24")


def size_claims() -> Iterator[Claim]:
    for name in SIZE_NAMES:
        model = shipped(name).model
        yield _dim(name, model)
        yield _heads(name, model)
        yield _parameters(name, model)
        yield _flops(name, model)
        yield _reference(name, model)


def short(number: float) -> str:
    """As the guide writes large numbers: 37M, 1.7B."""
    millions = number / 1e6
    return f"{millions:g}M" if millions < 1000 else f"{millions / 1000:g}B"


def _dim(name: str, model: ModelConfig) -> Claim:
    guide = guide_figure(name, "dim")
    why = "64 channels per layer"
    return compare_claim(f"sizes, {name}: dim", f"{guide:g}", guide, model.dim, "channels", why)


def _heads(name: str, model: ModelConfig) -> Claim:
    guide = guide_figure(name, "heads")
    usual = replace(model, head_dim=128).heads
    why, holds = "heads of 128 channels", None
    if model.heads != usual:
        why = f"only with heads of {model.head_dim} channels; of 128, as in other rows, {usual}"
        holds = Holds.ONLY_IF
    return compare_claim(
        f"sizes, {name}: heads", f"{guide:g}", guide, model.heads, "heads", why, holds
    )


def _parameters(name: str, model: ModelConfig) -> Claim:
    guide, counts = guide_figure(name, "parameters"), parameter_counts(model)
    why = {
        "d4": "all parameters, lookup tables included",
        "d8": f"no group of parameters has that many; without the value embeddings there are "
        f"{short_of(counts.total - counts.value_embeds)}",
        "d12": "all parameters, lookup tables included",
        "d20": f"{guide / counts.total - 1:.0%} too high",
        "d24": f"that is d26, with {short_of(parameter_counts(ModelConfig(depth=26)).total)}",
    }[name]
    line = f"sizes and CPU speeds, {name}: params"
    return compare_claim(line, short(guide), guide, counts.total, "parameters", why)


def _flops(name: str, model: ModelConfig) -> Claim:
    guide, ours = guide_figure(name, "flops_per_token"), flops_per_token(model)
    own = 6 * guide_figure(name, "parameters")
    windows = flops_per_token(replace(model, window_pattern="SSSL"))
    all_parameters = f"6 x all parameters, lookup tables included, is {short_of(six_n(model))}"
    why = {
        "d4": f"with short windows (SSSL), as in its author's run, {short_of(windows)}",
        "d8": f"attention is left out: without it {short_of(ours - attention_flops(model))}",
        "d12": all_parameters,
        "d20": f"6 x the guide's own parameters is {short_of(own)}: lookup tables multiply nothing",
        "d24": f"6 x the guide's own parameters is {short_of(own)}: lookup tables multiply nothing",
    }[name]
    line = f"sizes and CPU speeds, {name}: FLOPs/token"
    return compare_claim(line, short(guide), guide, ours, "FLOPs per token", why)


def _reference(name: str, model: ModelConfig) -> Claim:
    line, quote = f"sizes, {name}: reference", shipped(name).guide.reference or ""
    if name == "d12":
        upstream = optimal_tokens(model)
        batch = optimal_tokens_per_step(model)
        steps = steps_for_tokens(upstream, batch)
        why = f"upstream's d12 is {steps:,} steps of {batch:,} tokens"
        return compare_claim(line, quote, guide_figure(name, "tokens"), upstream, "tokens", why)
    largest_optimum = upstream_sweep().optima[-1].scaling_parameters
    ours, why = {
        "d4": (cpu_d4().model.depth, f"its run on {cpu_d4().hardware}: {cpu_d4().source}"),
        "d8": (
            rtx4070_d8().model.depth,
            f"logged with {digits((rtx4070_d8().peak_bytes or 0) / 1e9)} of 12 GB in use",
        ),
        "d20": (
            _even_depth_of(largest_optimum),
            f"the largest optimum of upstream's sweep has "
            f"{short_of(largest_optimum)} parameters in matrices and head: of the "
            f"even depths that upstream uses d20 is nearest",
        ),
        "d24": (
            mi300x_d24().model.depth,
            f"logged there at {digits(speed(mi300x_d24()))} tokens per second; "
            f"{digits(state_bytes(model, bf16_tables=True) / 1e9)} of 192 GB are state",
        ),
    }[name]
    return compare_claim(line, quote, model.depth, ours, "layers", why)


def _even_depth_of(scaling_parameters: int) -> int:
    """The even depth whose matrices and head come nearest to that many parameters."""

    def distance(depth: int) -> int:
        found = parameter_counts(ModelConfig(depth=depth)).scaling
        return abs(found - scaling_parameters)

    return min(range(2, 101, 2), key=distance)


def short_of(number: float) -> str:
    """Our own large numbers, to four digits: 125.8M."""
    return short(float(f"{number:.4g}"))
