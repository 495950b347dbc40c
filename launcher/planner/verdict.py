"""A plan in a sentence: is it worth it, and what would be better."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.formatting import format_bytes, format_count, format_duration
from launcher.planner.estimate import Estimate
from launcher.planner.public_runs import PUBLIC_RUNS
from launcher.planner.run_plan import Alternative, RunPlan

WAIT_HOURS = 1.0  # within an hour nobody needs another machine
PATIENCE_HOURS = 7 * 24.0  # a week of training is what people wait for
LONG_HOURS = 30 * 24.0
# Another way is named when it is this much faster: below, it is not worth changing anything.
MUCH_FASTER = 1.5
LEAST_SECONDS = 0.05  # shorter is shown as 0.0 s
WORTHLESS_HOST = 0.05  # a host that adds no more than this part of the best one is not worth it


def verdict(plan: RunPlan) -> str:
    prospect = plan.prospect
    if prospect.fits is False:
        return _does_not_fit(plan)
    elsewhere = _fastest_elsewhere(plan)
    if elsewhere is not None and prospect.hours > WAIT_HOURS:
        times = elsewhere.prospect.tokens_per_second / prospect.tokens_per_second
        there = _hours(elsewhere.prospect)
        return (
            f"use {elsewhere.words} instead ({elsewhere.options}): {there} against "
            f"{_hours(prospect)}, {times:,.{1 if times < 9.95 else 0}f}x"
        )
    if _soonest_hours(plan) > LONG_HOURS:
        return (
            f"not worth it here: {_hours(prospect)} for the whole horizon, "
            f"{format_duration(prospect.seconds_of(1000))} for 1,000 steps{_shorter(plan)}"
            f"{_logged_elsewhere(prospect)}"
        )
    alone = _faster_alone(plan)
    if alone is not None:
        return _slower_than_one(plan, alone)
    if prospect.hours <= PATIENCE_HOURS:
        return f"worth it: {_hours(prospect)} for the whole horizon"
    return f"a long run: {_hours(prospect)} for the whole horizon{_shorter(plan)}"


def _soonest_hours(plan: RunPlan) -> float:
    """With all of the machines or one of them, however rows are dealt."""
    same = [each.prospect for kind in ("shares", "host") for each in plan.of(kind)]
    return min(each.hours for each in (plan.prospect, *same) if each.fits is not False)


def _logged_elsewhere(prospect: Estimate) -> str:
    """What one GPU of others has done with this size; nothing where a GPU is what this is."""
    if prospect.site.machines[0].device != "cpu":
        return ""
    model = prospect.recipe.model
    runs = [
        run
        for run in PUBLIC_RUNS
        if run.model.depth == model.depth and run.gpu_model and run.devices == 1
    ]
    run = next((run for run in runs if run.tokens_per_second), None)
    if run is None or run.tokens_per_second is None:
        return ""
    tokens = prospect.recipe.steps_total * prospect.recipe.tokens_per_step
    return (
        f"; one {run.hardware.partition(',')[0]} was logged at {run.tokens_per_second:,.0f} tok/s: "
        f"{format_duration(tokens / run.tokens_per_second)}"
    )


def _does_not_fit(plan: RunPlan) -> str:
    prospect = plan.prospect
    lacking = [
        f"{host.name or 'this machine'} needs {format_bytes(host.peak_bytes)} of "
        f"{format_bytes(host.available_bytes or 0)} {host.place}"
        for host in prospect.hosts
        if host.fits is False
    ]
    lacking += [
        f"{machine.label} has {format_bytes(machine.disk_free_bytes or 0)} of disk left"
        for machine in prospect.full_disks
    ]
    would = [
        min(fitting, key=lambda each: each.prospect.hours)
        for kind in ("micro_batch", "pool", "host")
        if (fitting := _fitting(plan, kind))
    ]
    would += _fitting(plan, "size")[:1]  # the largest that does
    would.sort(key=lambda each: each.prospect.hours)
    in_time = [each for each in would if each.prospect.hours <= LONG_HOURS] or would[:1]
    words = [_with_time(each) for each in in_time]
    what = f"; what would: {', or '.join(words)}" if words else ""
    return f"does not fit: {'; '.join(lacking)}{what}"


def _with_time(alternative: Alternative) -> str:
    option = f" ({alternative.options})" if alternative.options else ""
    memory = ", if its memory is enough" if alternative.prospect.fits is None else ""
    long = ", trained as long for its size" if alternative.kind == "size" else ""
    return f"{alternative.words}{option}{long}, {_hours(alternative.prospect)}{memory}"


def _fastest_elsewhere(plan: RunPlan) -> Alternative | None:
    """Of the pools, where one is much faster."""
    best = _fastest(_fitting(plan, "pool"))
    least = plan.prospect.tokens_per_second * MUCH_FASTER
    return best if best is not None and best.prospect.tokens_per_second > least else None


def _fitting(plan: RunPlan, kind: str) -> list[Alternative]:
    """As far as it is known."""
    return [each for each in plan.of(kind) if each.prospect.fits is not False]


def _fastest(alternatives: Sequence[Alternative]) -> Alternative | None:
    return max(alternatives, key=lambda each: each.prospect.tokens_per_second, default=None)


def _faster_alone(plan: RunPlan) -> Alternative | None:
    """The host that is about as fast by itself."""
    best = _fastest(_fitting(plan, "host"))
    most = plan.prospect.tokens_per_second / _worth_it(plan)
    return best if best is not None and best.prospect.tokens_per_second >= most else None


def _worth_it(plan: RunPlan) -> float:
    """How many times as fast as the best host all of them should be at least."""
    return 1 + WORTHLESS_HOST * (len(plan.prospect.site.machines) - 1)


def _slower_than_one(plan: RunPlan, alone: Alternative) -> str:
    prospect = plan.prospect
    one, all_ = alone.prospect.tokens_per_second, prospect.tokens_per_second
    what = "is faster" if one > all_ else "is enough"
    words = (
        f"{alone.words} {what}: {one:,.0f} tok/s against {all_:,.0f} of all: "
        f"{_why_one_is_enough(prospect)}"
    )
    better = [
        each
        for kind in ("shares", "tokens_per_step")
        for each in _fitting(plan, kind)
        if each.prospect.tokens_per_second > one * _worth_it(plan)
    ]
    if better:
        all_would = better[0].prospect.tokens_per_second
        words += f"; with {better[0].words} ({better[0].options}) all make {all_would:,.0f}"
    return words


def _why_one_is_enough(prospect: Estimate) -> str:
    """They wait for the network, or for the slowest of them."""
    step = prospect.step
    waiting = max(step.busy_seconds.values()) - min(step.busy_seconds.values())
    if waiting > step.exposed_seconds:
        of = f"{format_duration(waiting)} of a step's {format_duration(step.seconds)}"
        others = [host for host in step.busy_seconds if host != step.slowest]
        who = f"{others[0]} waits" if len(others) == 1 else "the others wait"
        return f"{who} {of} for {step.slowest}"
    idle = step.term("wire") + step.term("overlap")
    wire = format_duration(step.term("wire"))
    words = (
        f"{format_bytes(step.wire_bytes)} of gradients a step take {wire}, "
        f"{format_duration(idle)} of it with nothing to compute meanwhile"
    )
    if (computing := step.term("exchange")) > max(LEAST_SECONDS, idle / 10):
        words += f", and {format_duration(computing)} of computing"
    return words


def _shorter(plan: RunPlan) -> str:
    """What would be done in time."""
    done = [each for each in _fitting(plan, "size") if each.prospect.hours <= PATIENCE_HOURS]
    if not done:
        tokens = plan.prospect.tokens_per_second * PATIENCE_HOURS * 3600
        return f"; a week gives {format_count(tokens)} tokens"
    return f"; {done[0].words}, trained as long for its size, takes {_hours(done[0].prospect)}"


def _hours(prospect: Estimate) -> str:
    return format_duration(3600 * prospect.hours)
