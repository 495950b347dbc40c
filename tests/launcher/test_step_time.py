"""The step-time model, worked out on paper and against what the exchange sends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from speeds import LINK, host_speed

from launcher.planner.gradient_traffic import expected_distinct_tokens, messages
from launcher.planner.step_time import RankLoad, StepTime, pass_correction, rates_at, step_time
from nanochat.sizes import (
    ModelConfig,
    flops_per_token,
    muon_flops,
    parameter_counts,
)

D4 = ModelConfig(depth=4, head_dim=64, sequence_length=512)
D8 = ModelConfig(depth=8, sequence_length=1024)
D12 = ModelConfig(depth=12)


def alone(model: ModelConfig, rows: int, micro_batch: int) -> StepTime:
    return step_time(model, [RankLoad("", rows, micro_batch)], {"": host_speed()}, None)


def pair(model: ModelConfig, rows: int, **link: float) -> StepTime:
    ranks = [RankLoad(name, rows, 1) for name in ("one", "two")]
    speeds = {"one": host_speed(), "two": host_speed(50.0)}
    return step_time(model, ranks, speeds, LINK.model_copy(update=link))


def test_products_take_their_flops_at_the_rate() -> None:
    step = alone(D4, rows=4, micro_batch=4)
    products = step.term("blocks") + step.term("attention") + step.term("head")
    assert products == pytest.approx(2048 * flops_per_token(D4) / 100e9)
    assert step.term("muon") == pytest.approx(muon_flops(D4) / 100e9)
    others = parameter_counts(D4).total - parameter_counts(D4).matrices
    assert step.term("adamw") == pytest.approx(7 * 4 * others / 10e9)
    assert step.seconds == pytest.approx(sum(term.seconds for term in step.terms))
    assert step.tokens_per_second == pytest.approx(2048 / step.seconds)


@pytest.mark.parametrize(
    ("depth", "context", "tokens"), [(4, 512, 269), (8, 1024, 1177), (12, 1024, 2296)]
)
def test_muon_costs_as_much_as_so_many_tokens(depth: int, context: int, tokens: int) -> None:
    """As published for upstream's windows: whatever the batch."""
    head_dim = 64 if depth == 4 else 128
    long = ModelConfig(depth=depth, head_dim=head_dim, sequence_length=1024, window_pattern="SSSL")
    assert muon_flops(long) / flops_per_token(long) == pytest.approx(tokens, abs=1.5)


def test_more_passes_fill_and_add_gradients_more_often() -> None:
    counts = parameter_counts(D4)
    tables = 4 * (counts.wte + counts.value_embeds)
    one, four = (alone(D4, 4, micro).term("memory") * 10e9 for micro in (4, 1))
    assert one == pytest.approx(tables)
    assert four == pytest.approx(4 * tables + 3 * 3 * 4 * counts.total)


def test_the_slowest_rank_is_waited_for() -> None:
    step = pair(D8, rows=1)
    assert step.slowest == "two"
    assert step.busy_seconds["two"] == pytest.approx(
        step.busy_seconds["one"] * 2, rel=0.1
    )  # but for memory, which is as fast
    assert step.term("muon") == pytest.approx(muon_flops(D8) / 50e9)


def test_of_the_ranks_of_a_host_the_one_with_the_most_rows_counts() -> None:
    speeds = {"": host_speed()}
    step = step_time(D8, [RankLoad("", 3, 1), RankLoad("", 1, 1)], speeds, LINK)
    alone = step_time(D8, [RankLoad("", 3, 1)], speeds, None)
    assert step.term("head") == alone.term("head")


def test_a_fast_rank_goes_on_while_a_slow_one_is_updating() -> None:
    """What it has more of rows may take as long as the other's update takes longer."""
    ranks = [RankLoad("one", 4, 1), RankLoad("two", 1, 1)]
    speeds = {"one": host_speed(), "two": host_speed(50.0)}
    step = step_time(D8, ranks, speeds, LINK)
    alone = [step_time(D8, [load], speeds, None).seconds for load in ranks]
    computing = step.seconds - step.exposed_seconds
    assert computing == pytest.approx(max(alone)) == pytest.approx(max(step.busy_seconds.values()))


def test_what_is_sent_while_backward_goes_on_costs_nothing() -> None:
    fast = pair(D8, rows=16, bytes_per_second=1e9)
    assert fast.term("wire") > 0
    assert fast.exposed_seconds < 0.05 * fast.term("wire") + 0.02  # the embedding's, at the end
    slow = pair(D8, rows=1, bytes_per_second=1e6)
    assert slow.exposed_seconds > 0.95 * slow.term("wire")
    assert max(slow.parts, key=lambda part: slow.parts[part]) == "network"


def test_bytes_are_those_of_the_table_of_wire_bytes() -> None:
    """Against a plain all-reduce; tests/nanochat/test_wire_bytes.py measures 0.341 and 0.384."""
    plain = 4 * parameter_counts(D8).total
    for tokens, measured in ((2048, 0.341), (32_768, 0.384)):
        sent = sum(message.bytes for message in messages(D8, [tokens // 2] * 2))
        assert sent / plain == pytest.approx(measured, rel=0.06)
    assert messages(D8, [2048]) == []


def test_different_tokens_grow_as_heaps_law_says() -> None:
    assert expected_distinct_tokens(2048, 32_768) == 736
    assert 736 < expected_distinct_tokens(3000, 32_768) < 1250
    assert expected_distinct_tokens(10**9, 32_768) == 32_768
    assert expected_distinct_tokens(100, 32_768) < 100
    assert expected_distinct_tokens(2048, 300) == 300


def test_rates_between_two_widths() -> None:
    low, high = host_speed(40.0).widths[512], host_speed(90.0).widths[512]
    speed = host_speed(widths={256: low, 1024: high})
    assert rates_at(speed, 128) == low and rates_at(speed, 4096) == high
    assert rates_at(speed, 512).products == pytest.approx(60e9)  # the geometric mean


def test_a_correction_is_of_what_computes() -> None:
    plain = alone(D4, 4, 4)
    speeds, ranks = {"": host_speed()}, [RankLoad("", 4, 4)]
    assert step_time(D4, ranks, speeds, None, correction=1.5).seconds == pytest.approx(
        1.5 * plain.seconds
    )
    both = replace(ranks[0], host="one"), replace(ranks[0], host="two")
    speeds = {"one": host_speed(), "two": host_speed()}
    wires = [
        step_time(D4, both, speeds, LINK, correction=factor).term("wire") for factor in (1.0, 2.0)
    ]
    assert wires[0] == wires[1]


def test_a_whole_pass_corrects_its_parts() -> None:
    """Of gradients that add up: tables filled with zeros, then all of them added."""
    counts, speed = parameter_counts(D4), host_speed()
    parts = 2048 * flops_per_token(D4) / 100e9
    parts += 4 * (counts.wte + counts.value_embeds + 3 * counts.total) / 10e9
    factor = pass_correction(D4, speed, 2048, 1.25 * parts)
    assert factor == pytest.approx(1.25)
    corrected = speed.model_copy(update={"pass_correction": factor})
    ranks = [RankLoad("", 4, 4)]
    plain, longer = (step_time(D4, ranks, {"": each}, None) for each in (speed, corrected))
    assert longer.term("head") == pytest.approx(1.25 * plain.term("head"))
    assert longer.term("muon") == plain.term("muon")
