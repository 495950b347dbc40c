"""The verdict on a plan, in one sentence: whether it is worth it, and what would be better."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.formatting import format_bytes, format_count, format_duration
from launcher.planner.estimate import Estimate
from launcher.planner.public_runs import public_runs
from launcher.planner.run_plan import Alternative, RunPlan

WAIT_HOURS = 1.0  # within an hour nobody needs another machine
PATIENCE_HOURS = 7 * 24.0  # a week of training is what people wait for
LONG_HOURS = 30 * 24.0
# An alternative is named if it is this much faster: below, changing anything is not worth it.
MUCH_FASTER = 1.5
MIN_SECONDS = 0.05  # shorter is shown as 0.0 s
WORTHLESS_HOST = 0.05  # a host that adds no more than this part of the best one is not worth it


def verdict(plan: RunPlan) -> str:
    estimate = plan.estimate
    if estimate.fits is False:
        return _does_not_fit(plan)
    elsewhere = _fastest_elsewhere(plan)
    if elsewhere is not None and estimate.hours > WAIT_HOURS:
        times = elsewhere.estimate.tokens_per_second / estimate.tokens_per_second
        return (
            f"use {elsewhere.description} instead ({elsewhere.options}): "
            f"{_hours(elsewhere.estimate)} against "
            f"{_hours(estimate)}, {times:,.{1 if times < 9.95 else 0}f}x"
        )
    if _soonest_hours(plan) > LONG_HOURS:
        return (
            f"not worth it here: {_hours(estimate)} for the whole horizon, "
            f"{format_duration(estimate.seconds_of(1000))} for 1,000 steps{_shorter(plan)}"
            f"{_logged_elsewhere(estimate)}"
        )
    alone = _faster_alone(plan)
    if alone is not None:
        return _slower_than_one(plan, alone)
    if estimate.hours <= PATIENCE_HOURS:
        return f"worth it: {_hours(estimate)} for the whole horizon"
    return f"a long run: {_hours(estimate)} for the whole horizon{_shorter(plan)}"


def _soonest_hours(plan: RunPlan) -> float:
    """The fewest hours with all of the machines or one of them, with any shares."""
    same = [found.estimate for kind in ("shares", "host") for found in plan.of_kind(kind)]
    estimates = (plan.estimate, *same)
    return min(estimate.hours for estimate in estimates if estimate.fits is not False)


def _logged_elsewhere(estimate: Estimate) -> str:
    """How long one GPU of a public run would take for this size; empty if the machines are GPUs."""
    if estimate.hardware.machines[0].device != "cpu":
        return ""
    model = estimate.recipe.model
    runs = [
        run
        for run in public_runs()
        if run.model.depth == model.depth and run.gpu_model and run.devices == 1
    ]
    run = next((run for run in runs if run.tokens_per_second), None)
    if run is None or run.tokens_per_second is None:
        return ""
    tokens = estimate.recipe.steps_total * estimate.recipe.tokens_per_step
    return (
        f"; one {run.hardware.partition(',')[0]} was logged at {run.tokens_per_second:,.0f} tok/s: "
        f"{format_duration(tokens / run.tokens_per_second)}"
    )


def _does_not_fit(plan: RunPlan) -> str:
    estimate = plan.estimate
    lacking = [
        f"{host.name or 'this machine'} needs {format_bytes(host.peak_bytes)} of "
        f"{format_bytes(host.available_bytes or 0)} {host.memory_kind}"
        for host in estimate.hosts
        if host.fits is False
    ]
    lacking += [
        f"{machine.label} has {format_bytes(machine.disk_free_bytes or 0)} of disk left"
        for machine in estimate.full_disks
    ]
    fixes = [
        min(fitting, key=lambda found: found.estimate.hours)
        for kind in ("micro_batch", "pool", "host")
        if (fitting := _fitting(plan, kind))
    ]
    fixes += _fitting(plan, "size")[:1]  # the largest that does
    fixes.sort(key=lambda found: found.estimate.hours)
    in_time = [found for found in fixes if found.estimate.hours <= LONG_HOURS] or fixes[:1]
    texts = [_with_time(found) for found in in_time]
    fix = f"; what would: {', or '.join(texts)}" if texts else ""
    return f"does not fit: {'; '.join(lacking)}{fix}"


def _with_time(alternative: Alternative) -> str:
    option = f" ({alternative.options})" if alternative.options else ""
    memory = ", if its memory is enough" if alternative.estimate.fits is None else ""
    long = ", trained as long for its size" if alternative.kind == "size" else ""
    return f"{alternative.description}{option}{long}, {_hours(alternative.estimate)}{memory}"


def _fastest_elsewhere(plan: RunPlan) -> Alternative | None:
    """The fastest of the other pools, if it is much faster."""
    best = _fastest(_fitting(plan, "pool"))
    min_speed = plan.estimate.tokens_per_second * MUCH_FASTER
    return best if best is not None and best.estimate.tokens_per_second > min_speed else None


def _fitting(plan: RunPlan, kind: str) -> list[Alternative]:
    """Those that fit, or whose memory is unknown."""
    return [found for found in plan.of_kind(kind) if found.estimate.fits is not False]


def _fastest(alternatives: Sequence[Alternative]) -> Alternative | None:
    return max(alternatives, key=lambda found: found.estimate.tokens_per_second, default=None)


def _faster_alone(plan: RunPlan) -> Alternative | None:
    """The fastest host, if it is about as fast by itself."""
    best = _fastest(_fitting(plan, "host"))
    min_speed = plan.estimate.tokens_per_second / _worth_it(plan)
    return best if best is not None and best.estimate.tokens_per_second >= min_speed else None


def _worth_it(plan: RunPlan) -> float:
    """How many times as fast as the best host all of them must be at least."""
    return 1 + WORTHLESS_HOST * (len(plan.estimate.hardware.machines) - 1)


def _slower_than_one(plan: RunPlan, alone: Alternative) -> str:
    estimate = plan.estimate
    one, all_ = alone.estimate.tokens_per_second, estimate.tokens_per_second
    what = "is faster" if one > all_ else "is enough"
    message = (
        f"{alone.description} {what}: {one:,.0f} tok/s against {all_:,.0f} of all: "
        f"{_why_one_is_enough(estimate)}"
    )
    better = [
        found
        for kind in ("shares", "tokens_per_step")
        for found in _fitting(plan, kind)
        if found.estimate.tokens_per_second > one * _worth_it(plan)
    ]
    if better:
        speed = better[0].estimate.tokens_per_second
        message += f"; with {better[0].description} ({better[0].options}) all make {speed:,.0f}"
    return message


def _why_one_is_enough(estimate: Estimate) -> str:
    """Why more hosts do not help: they wait for the network, or for the slowest of them."""
    step = estimate.step
    waiting = max(step.busy_seconds.values()) - min(step.busy_seconds.values())
    if waiting > step.exposed_seconds:
        of = f"{format_duration(waiting)} of a step's {format_duration(step.seconds)}"
        others = [host for host in step.busy_seconds if host != step.slowest]
        who = f"{others[0]} waits" if len(others) == 1 else "the others wait"
        return f"{who} {of} for {step.slowest}"
    idle = step.term("wire") + step.term("overlap")
    wire = format_duration(step.term("wire"))
    message = (
        f"{format_bytes(step.wire_bytes)} of gradients a step take {wire}, "
        f"{format_duration(idle)} of it with nothing to compute meanwhile"
    )
    if (computing := step.term("exchange")) > max(MIN_SECONDS, idle / 10):
        message += f", and {format_duration(computing)} of computing"
    return message


def _shorter(plan: RunPlan) -> str:
    """The largest size that a week is enough for, or the tokens of a week."""
    in_time = [found for found in _fitting(plan, "size") if found.estimate.hours <= PATIENCE_HOURS]
    if not in_time:
        tokens = plan.estimate.tokens_per_second * PATIENCE_HOURS * 3600
        return f"; a week gives {format_count(tokens)} tokens"
    hours = _hours(in_time[0].estimate)
    return f"; {in_time[0].description}, trained as long for its size, takes {hours}"


def _hours(estimate: Estimate) -> str:
    return format_duration(3600 * estimate.hours)
