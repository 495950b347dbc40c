"""The guide's third table: two CPU machines. Its law is tested with right FLOPs and by its author's
own next run; `launch plan` puts measurements in its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from launcher.planner.horizons import optimal_tokens
from launcher.planner.published_guide.claim import (
    Claim,
    Holds,
    compare_claim,
    digits,
    guide_figure,
    shipped,
)
from launcher.planner.published_guide.logged import cpu_d4, cpu_d8, speed
from nanochat.sizes import flops_per_token

SPEED_NAMES = ("d4", "d8", "d12", "d20")
TOKENS_PER_STEP = 2_048  # of d4's run: what the guide's times per step mean, without saying so
QUOTES = {  # tokens per second, time per step, 1,000 steps, as the guide has them
    "d4": ("115", "18s", "5 hrs"),
    "d8": ("~35", "58s", "16 hrs"),
    "d12": ("~5", "7.5min", "5.2 days"),
    "d20": ("~1.4", "26min", "18 days"),
}
UNITS = {
    "s": ("seconds", 1),
    "min": ("minutes", 60),
    "hrs": ("hours", 3600),
    "days": ("days", 86_400),
}


def speed_claims() -> Iterator[Claim]:
    yield compare_claim(
        "CPU speeds, heading",
        "2 nodes",
        2,
        cpu_d4().devices,
        "machines",
        f"{cpu_d4().hardware}, d4 over Wi-Fi: {cpu_d4().source}",
    )
    yield _logged("CPU speeds, measured", "~115")
    for name in SPEED_NAMES:
        yield _tokens_per_second(name)
        yield _seconds_per_step(name)
        yield _thousand_steps(name)
    yield from _law()


def guide_law(name: str) -> float:
    """Tokens per second by the guide's law, with right FLOPs."""
    return guide_figure("d4", "cpu_tokens_per_second") / slower("d4", name)


def slower(one: str, other: str) -> float:
    """How many times the FLOPs of a token the other model has, each at its recipe's context."""
    return flops_per_token(shipped(other).model) / flops_per_token(shipped(one).model)


def best_known(name: str) -> float:
    """Tokens per second of the guide's machines: logged for d4 and d8, else by the law."""
    logged = {"d4": cpu_d4, "d8": cpu_d8}.get(name)
    return guide_law(name) if logged is None else speed(logged())


def _logged(line: str, quote: str) -> Claim:
    """d4's own: its steps varied by more than the guide's rounding."""
    return compare_claim(
        line,
        quote,
        guide_figure("d4", "cpu_tokens_per_second"),
        speed(cpu_d4()),
        "tokens per second",
        f"one of its steps: they were {cpu_d4().slowest:g} to {cpu_d4().fastest:g}, median "
        f"{speed(cpu_d4()):g}",
        Holds.YES,
    )


def _tokens_per_second(name: str) -> Claim:
    line, quote = f"CPU speeds, {name}: tok/sec", QUOTES[name][0]
    if name == "d4":
        return _logged(line, quote)
    why = "by the law with right FLOPs, which fails at d8 already: a measured plan replaces it"
    if name == "d8":
        why = (
            f"its author's own next run measured {cpu_d8().slowest:g} to {cpu_d8().fastest:g}, the "
            f"law with right FLOPs gives {digits(guide_law(name))}: a measured plan replaces it"
        )
    guide = guide_figure(name, "cpu_tokens_per_second")
    return compare_claim(line, quote, guide, best_known(name), "tokens per second", why)


def _seconds_per_step(name: str) -> Claim:
    recipe = shipped(name).recipe
    guide = guide_figure(name, "cpu_tokens_per_second")
    why = (
        f"only at {TOKENS_PER_STEP:,} tokens per step and its own {guide:g} tokens per second, "
        f"which make {digits(TOKENS_PER_STEP / guide)} seconds"
    )
    if recipe.tokens_per_step != TOKENS_PER_STEP:
        minutes = recipe.tokens_per_step / best_known(name) / 60
        why += f"; a step of {recipe.tokens_per_step:,} takes {digits(minutes)} minutes"
    seconds = guide_figure(name, "seconds_per_step"), TOKENS_PER_STEP / best_known(name)
    return _lasting(f"CPU speeds, {name}: time/step", QUOTES[name][1], *seconds, why)


def _thousand_steps(name: str) -> Claim:
    tokens = 1_000 * TOKENS_PER_STEP
    of_optimal = tokens / optimal_tokens(shipped(name).model)
    why = (
        f"only at {TOKENS_PER_STEP:,} tokens per step: {digits(tokens / 1e6)}M tokens, "
        f"{of_optimal:.2%} of the optimum"
    )
    seconds = 3600 * guide_figure(name, "hours_per_1000_steps"), tokens / best_known(name)
    return _lasting(f"CPU speeds, {name}: 1000 steps", QUOTES[name][2], *seconds, why)


def _lasting(line: str, quote: str, guide: float, ours: float, why: str) -> Claim:
    """Seconds, in the unit that the guide has."""
    unit, length = UNITS[quote.lstrip("0123456789. ")]
    return compare_claim(line, quote, guide / length, ours / length, unit, why, Holds.ONLY_IF)


def _law() -> Iterator[Claim]:
    guide = guide_figure("d4", "cpu_tokens_per_second")
    flops = [flops_per_token(run.model) for run in (cpu_d4(), cpu_d8())]
    d4_speed, d8_speed = speed(cpu_d4()), speed(cpu_d8())
    yield compare_claim(
        "CPU speeds, formula",
        "∝ 1 / FLOPs",
        guide / guide_figure("d8", "cpu_tokens_per_second"),
        d4_speed / d8_speed,
        "times from d8 to d4",
        f"measured by its author; the FLOPs of these two runs differ {digits(flops[1] / flops[0])} "
        "times",
    )
    yield compare_claim(
        "CPU speeds, formula: bound",
        "compute-bound",
        1,
        d8_speed * flops[1] / (d4_speed * flops[0]),
        "times d4's FLOP/s at d8",
        f"d8, with twice the tokens per step, had {digits(d8_speed * flops[1] / 1e9)} GFLOP/s: "
        "what fits both is bytes per token on the link",
    )
    same_context = flops_per_token(replace(shipped("d12").model, sequence_length=512))
    yield compare_claim(
        "CPU speeds, formula: d4→d12",
        "24x",
        24,
        slower("d4", "d12"),
        "times slower",
        f"the guide has 6 x all parameters for d12 only; by one formula, each at its own context; "
        f"both at 512 tokens {digits(same_context / flops_per_token(shipped('d4').model))}",
    )
    yield compare_claim(
        "CPU speeds, formula: d12",
        "115/24 ≈ 5",
        guide_figure("d12", "cpu_tokens_per_second"),
        guide_law("d12"),
        "tokens per second",
        f"115 / {digits(slower('d4', 'd12'))}, and no run shows that the law holds",
    )
