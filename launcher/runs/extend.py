"""A run that is openly prolonged: what changes in run.json, and what its schedule makes of that.

Warm-up and text stay what they were, whatever of them followed from the length. The rest of the
schedule is that of the new length from the next step on, as if it had been meant from the start.
"""

from __future__ import annotations

from launcher.config.recipe import HORIZON_KEYS
from launcher.errors import InputError
from launcher.runs.folder import RunFolder
from launcher.runs.spec import Extension, RunSpec
from launcher.runs.state import last_saved_step
from nanochat.optimizer.schedule import WARMDOWN_FRACTION, Schedule

MAX_STEPS = 1_000_000_000
OBSERVED_RISE = "a public run went from 0.935 to 1.016 bits per byte through this"


def extend_run(folder: RunFolder, spec: RunSpec, extra_steps: int) -> RunSpec:
    """Return the spec of a run that is to make `extra_steps` more than it has.

    `spec`: its own, or what it is changed to at the same time. Raises InputError if these are too
    many steps.
    """
    recipe = spec.recipe
    before, after = recipe.steps_total, recipe.steps_total + extra_steps
    if after > MAX_STEPS:
        raise InputError(f"--extend: {after:,} steps", fix=f"at most {MAX_STEPS:,} in all")
    data = {**spec.settings["data"], "source": recipe.text_source}
    horizon = {key: None for key in HORIZON_KEYS} | {"steps": after}
    at_step = last_saved_step(folder)
    if spec.extended and spec.extended[-1].at_step == at_step:
        # No event tells of a checkpoint with that length: the one before is what the run has
        # followed. The entry stays: there may be one whose event was lost with a driver.
        before = spec.extended[-1].from_steps
    extension = Extension(from_steps=before, to_steps=after, at_step=at_step)
    return spec.with_changes(
        settings={**spec.settings, **horizon, "warmup_steps": recipe.warmup, "data": data},
        steps=after,
        extended=(*spec.extended, extension),
    )


def describe_schedule(before: Schedule, after: Schedule, step: int) -> str:
    """What the change does to a run that has made `step` steps."""
    become = "step becomes" if before.steps == 1 else "steps become"
    first = f"{before.steps:,} {become} {after.steps:,}. "
    if not step:
        return first + "Nothing has been trained yet: it costs nothing."
    decay_before, decay_after = before.weight_decay(step - 1), after.weight_decay(step)
    decay = _describe_change("weight decay", decay_before, decay_after)
    decays = f"{decay} of its start" if decay else ""
    rate_before, rate_after = before.learning_rate(step - 1), after.learning_rate(step)
    if step <= before.warmup_steps or rate_before == 1.0:
        starts_after, starts_before = _first_falling_step(after), _first_falling_step(before)
        return (
            f"{first}This costs nothing: the learning rate has not begun to fall. "
            f"It does from step {starts_after:,} on, not from step {starts_before:,}."
        ) + (f" Only {decays}." if decays else "")
    message = (
        f"{first}The learning rate was at {rate_before:.2f} of its peak at step {step:,}; with "
        f"{after.steps:,} steps it is {rate_after:.2f} at step {step + 1:,}: it "
    )
    rises = rate_after > rate_before
    message += f"rises {rate_after / rate_before:.3g}x" if rises else "goes on falling"
    momentum = _describe_change("momentum", before.momentum(step - 1), after.momentum(step))
    message += "."
    if rest := "; ".join(filter(None, (momentum, decays))):
        message += f" {rest[0].upper()}{rest[1:]}."
    if rises:
        message += f" The loss usually rises first: {OBSERVED_RISE}."
    return message


def _describe_change(what: str, before: float, after: float) -> str:
    """Empty if the two look equal."""
    old, new = f"{before:.2f}", f"{after:.2f}"
    return f"{what} goes from {old} to {new}" if old != new else ""


def _first_falling_step(schedule: Schedule) -> int:
    """The first step whose rate is below the peak for good."""
    flat = schedule.steps - round(WARMDOWN_FRACTION * schedule.steps)
    return max(flat + 2, schedule.warmup_steps + 1)
