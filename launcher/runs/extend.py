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

MOST_STEPS = 1_000_000_000
SEEN = "a public run went from 0.935 to 1.016 bits per byte through this"


def extend_run(folder: RunFolder, spec: RunSpec, more: int) -> RunSpec:
    """Return the spec of a run that is to make `more` steps than it has.

    `spec`: its own, or what it is changed to at the same time. Raises InputError if these are too
    many steps.
    """
    recipe = spec.recipe
    before, after = recipe.steps_total, recipe.steps_total + more
    if after > MOST_STEPS:
        raise InputError(f"--extend: {after:,} steps", fix=f"at most {MOST_STEPS:,} in all")
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
    decay = _change("weight decay", before.weight_decay(step - 1), after.weight_decay(step))
    decays = f"{decay} of its start" if decay else ""
    was, then = before.learning_rate(step - 1), after.learning_rate(step)
    if step <= before.warmup_steps or was == 1.0:
        return (
            f"{first}This costs nothing: the learning rate has not begun to fall. "
            f"It does from step {_falls_from(after):,} on, not from step {_falls_from(before):,}."
        ) + (f" Only {decays}." if decays else "")
    words = (
        f"{first}The learning rate was at {was:.2f} of its peak at step {step:,}; with "
        f"{after.steps:,} steps it is {then:.2f} at step {step + 1:,}: it "
    )
    words += f"rises {then / was:.3g}x" if then > was else "goes on falling"
    momentum = _change("momentum", before.momentum(step - 1), after.momentum(step))
    words += "."
    if rest := "; ".join(filter(None, (momentum, decays))):
        words += f" {rest[0].upper()}{rest[1:]}."
    if then > was:
        words += f" The loss usually rises first: {SEEN}."
    return words


def _change(what: str, was: float, then: float) -> str:
    """Empty where the two look equal."""
    words = f"{was:.2f}", f"{then:.2f}"
    return f"{what} goes from {words[0]} to {words[1]}" if words[0] != words[1] else ""


def _falls_from(schedule: Schedule) -> int:
    """The first step whose rate is below the peak for good."""
    flat = schedule.steps - round(WARMDOWN_FRACTION * schedule.steps)
    return max(flat + 2, schedule.warmup_steps + 1)
