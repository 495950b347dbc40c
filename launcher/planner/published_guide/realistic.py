"""The rest of the guide: what is realistic on CPUs, its verdict, and its last paragraph."""

from __future__ import annotations

import math
from collections.abc import Iterator

from launcher.config.recipe import WARMUP_STEPS
from launcher.planner.horizons import count_horizon, optimal_tokens
from launcher.planner.published_guide.claim import (
    Claim,
    Figure,
    Holds,
    compare_claim,
    digits,
    guide_figure,
    shipped,
)
from launcher.planner.published_guide.logged import (
    cpu_d4,
    cpu_d8,
    our_d4,
    rtx4070_d8,
    rtx4070_d12,
    rtx4070_d12_resumed,
    speed,
)
from launcher.planner.published_guide.speeds import TOKENS_PER_STEP, guide_law
from nanochat.sizes import VOCAB_SIZE, state_bytes

MINUTE, HOUR, DAY = 60, 3600, 86_400
YEAR = 365.25 * DAY
D8_TOKENS = 5_000 * 32_768  # the guide's horizon of d8
GPU_GB = 12  # of an RTX 4070


def realistic_claims() -> Iterator[Claim]:
    yield from _d4()
    yield from _d8()
    yield from _d12()
    yield from _verdict()
    yield from _closing()


def _d4() -> Iterator[Claim]:
    guide_speed = guide_figure("d4", "cpu_tokens_per_second")
    tokens = 20 * TOKENS_PER_STEP
    line = "realistic, d4: 20 steps"
    yield compare_claim(
        line, "20 x 2048 = 40,960", 40_960, tokens, "tokens", "steps x tokens per step"
    )
    at_speed = f"at the {guide_speed:g} tokens per second that it measured"
    yield compare_claim(line, "~6 min", 6, tokens / guide_speed / MINUTE, "minutes", at_speed)
    line = "realistic, d4: 1000 steps"
    hours = 1_000 * TOKENS_PER_STEP / guide_speed / HOUR
    yield compare_claim(
        line, "5 hours", 5, hours, "hours", f"{at_speed}, {TOKENS_PER_STEP:,} a step"
    )
    untrained, trained = cpu_d4().bits_per_byte[0].val_bpb, our_d4().last.val_bpb
    yield Claim(
        "basic patterns",
        line,
        Figure(1_000, "steps"),
        Figure(trained, "bits per byte"),
        Holds.YES,
        f"ours after as many steps, from {digits(untrained)}: {our_d4().source}",
    )
    nats = math.log(VOCAB_SIZE)
    yield compare_claim(
        "realistic, d4: val bpb",
        "~10.39",
        10.39,
        untrained,
        "bits per byte",
        f"10.39 is an untrained model's loss in nats per token, ln {VOCAB_SIZE:,} = {nats:.3f}: as "
        "bits per byte the same model has ours",
    )
    after = cpu_d4().last
    yield compare_claim(
        "realistic, d4: val bpb",
        "~3.2 (huge improvement)",
        guide_figure("d4", "val_bpb"),
        trained,
        "bits per byte",
        f"{digits(untrained)} is the untrained model: the logged run's last is "
        f"{after.val_bpb:.3f}; ours after 1,000 steps",
    )


def _d8() -> Iterator[Claim]:
    batch = shipped("d8").recipe.tokens_per_step
    guide_speed = guide_figure("d8", "cpu_tokens_per_second")
    logged_speed = speed(cpu_d8())
    tokens = 1_000 * batch
    line = "realistic, d8: 1000 steps"
    yield compare_claim(
        line, "1000 x 32768 = 33M", 33e6, tokens, "tokens", "steps x tokens per step"
    )
    yield compare_claim(
        line,
        "~16 hours",
        16,
        tokens / logged_speed / HOUR,
        "hours",
        f"at the {logged_speed:g} tokens per second that were logged; at the guide's "
        f"{guide_speed:g} "
        f"{digits(tokens / guide_speed / DAY)} days; 16 hours are {TOKENS_PER_STEP:,} a step",
    )
    line = "realistic, d8: 5000 steps"
    yield _judgement_of_d8(line, "decent results")
    yield compare_claim(
        line,
        "3.3 days",
        3.3,
        5_000 * batch / logged_speed / DAY,
        "days",
        f"at the {logged_speed:g} tokens per second that were logged; at the guide's "
        f"{guide_speed:g} "
        f"{digits(5_000 * batch / guide_speed / DAY)}",
    )
    reached = rtx4070_d8().bpb_at(tokens)
    yield Claim(
        "~1.5-2.0",
        "realistic, d8: val bpb",
        Figure(1.5, "bits per byte", high=2.0),
        Figure(reached, "bits per byte"),
        Holds.NO,
        f"pessimistic: logged at 1,000 of 5,000 steps, its rates still high: {rtx4070_d8().source}",
    )


def _d12() -> Iterator[Claim]:
    batch = shipped("d12").recipe.tokens_per_step
    guide_speed = guide_figure("d12", "cpu_tokens_per_second")
    tokens, all_tokens = 10_000 * batch, 200_000 * batch
    line = "realistic, d12: 10k steps"
    yield compare_claim(
        line, "10k x 65536 = 655M", 655e6, tokens, "tokens", "steps x tokens per step"
    )
    share = count_horizon(tokens, shipped("d12").model)["of_optimal"]
    yield Claim(
        "min useful",
        line,
        Figure(10_000, "steps"),
        Figure(rtx4070_d12().bpb_at(tokens), "bits per byte"),
        Holds.ONLY_IF,
        f"a judgement: {digits(share)} of the optimum; logged on {rtx4070_d12().text}",
    )
    yield compare_claim(
        line,
        "36 hours",
        36,
        tokens / guide_law("d12") / HOUR,
        "hours",
        f"{digits(tokens / guide_law('d12') / YEAR)} years by the law with right FLOPs, "
        f"{digits(tokens / guide_speed / YEAR)} at the guide's own {guide_speed:g} tokens per "
        f"second; 36 hours need {digits(tokens / 36 / HOUR)}",
    )
    yield compare_claim(
        "realistic, d12: 200k steps",
        "30 days",
        30,
        all_tokens / guide_law("d12") / DAY,
        "days",
        f"{digits(all_tokens / guide_law('d12') / YEAR)} years by the law with right FLOPs, "
        f"{digits(all_tokens / guide_speed / YEAR)} at the guide's own {guide_speed:g} tokens per "
        "second",
    )
    best = rtx4070_d12_resumed().best
    yield compare_claim(
        "realistic, d12: best",
        "best 0.853",
        guide_figure("d12", "val_bpb"),
        best.val_bpb,
        "bits per byte",
        f"0.853 was its last; its best was at {(best.tokens or 0) // batch:,} steps",
    )
    gpu_speed = speed(rtx4070_d12_resumed())
    yield compare_claim(
        "realistic, d12: on an RTX 4070",
        "~65 hours",
        65,
        all_tokens / gpu_speed / HOUR,
        "hours",
        f"at the {digits(gpu_speed)} tokens per second that were logged",
    )


def _verdict() -> Iterator[Claim]:
    gpu_speed, logged_speed = speed(rtx4070_d8()), speed(cpu_d8())
    d4 = optimal_tokens(shipped("d4").model) / speed(cpu_d4()) / DAY
    yield Claim(
        "d4/d8 experiments",
        "verdict",
        None,
        Figure(d4, "days", high=D8_TOKENS / logged_speed / DAY),
        Holds.ONLY_IF,
        "short runs only: on the guide's pair d4's optimum, and the guide's own horizon of d8, "
        "take that long",
    )
    fits = state_bytes(shipped("d12").model, bf16_tables=True) / 1e9
    peak = (rtx4070_d12().peak_bytes or 0) / 1e9
    large = [state_bytes(shipped(name).model, bf16_tables=True) / 1e9 for name in ("d20", "d24")]
    yield Claim(
        "d12+",
        "verdict",
        Figure(GPU_GB, "GB"),
        Figure(fits, "GB", high=large[-1]),
        Holds.ONLY_IF,
        f"d12 fits ({digits(peak)} GB at its peak, logged); d20's state alone is "
        f"{digits(large[0])} GB, d24's is more than the card has",
    )
    yield compare_claim(
        "verdict",
        "~100x",
        100,
        gpu_speed / logged_speed,
        "times",
        f"d8: {digits(gpu_speed)} tokens per second against {digits(logged_speed)} of both CPUs",
    )


def _closing() -> Iterator[Claim]:
    gpu_speed, logged_speed = speed(rtx4070_d8()), speed(cpu_d8())
    nats = math.log(VOCAB_SIZE)
    yield compare_claim(
        "closing, loss",
        "10.40",
        10.40,
        nats,
        "nats per token",
        f"an untrained model's, ln {VOCAB_SIZE:,} = {nats:.3f}",
    )
    yield compare_claim(
        "closing, loss",
        "10.40 → 10.39 in 5 steps",
        5,
        WARMUP_STEPS,
        "steps",
        f"upstream's rates rise for {WARMUP_STEPS}: within them it cannot be told from an "
        "untrained model",
    )
    yield _judgement_of_d8("closing, coherent text", "d8 with 5000 steps")
    yield compare_claim(
        "closing, on CPUs",
        "~3 days",
        3,
        D8_TOKENS / logged_speed / DAY,
        "days",
        f"at the {logged_speed:g} tokens per second that were logged: {cpu_d8().source}",
    )
    minutes = D8_TOKENS / gpu_speed / MINUTE
    yield Claim(
        "a few hours",
        "closing, on an RTX 4070",
        Figure(2, "hours", high=5),
        Figure(minutes / 60, "hours"),
        Holds.NO,
        f"{digits(minutes)} minutes at the {digits(gpu_speed)} tokens per second that were logged",
    )


def _judgement_of_d8(line: str, quote: str) -> Claim:
    return Claim(
        quote,
        line,
        Figure(5_000, "steps"),
        Figure(rtx4070_d8().last.val_bpb, "bits per byte"),
        Holds.ONLY_IF,
        "a judgement, for samples at fixed prompts to show; the bits per byte of a logged run",
    )
