"""The summary of a recipe, as people read it."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence

from launcher.config.recipe import Recipe
from launcher.formatting import format_bytes, format_count, format_flops
from launcher.operations.run_location import RunLocation
from launcher.planner.summary import RecipeSummary
from nanochat.dataset.climbmix import CLIMBMIX, SHARD_BYTES, is_address


def _ratio(number: float) -> str:
    return f"{number:,.0f}" if number >= 99.5 else f"{number:.2g}"


def plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def text_description(recipe: Recipe) -> str:
    kind, _, shards = recipe.text_source.partition(":")
    if kind != CLIMBMIX:
        return recipe.text_source
    validates = recipe.data.validation is None
    text = f"{CLIMBMIX}, {plural(int(shards), 'shard')}"
    text += " and one to validate with" * validates
    text += ", as many as the horizon needs" * (recipe.data.source == CLIMBMIX)
    if recipe.data.mirror and not is_address(recipe.data.mirror):
        return f"{text}, from {recipe.data.mirror}"
    return (
        f"{text}: about {format_bytes((int(shards) + validates) * SHARD_BYTES)} to download, once"
    )


def summary_lines(
    name: str,
    summary: RecipeSummary,
    location: RunLocation,
    estimate_rows: Sequence[tuple[str, str]],
) -> str:
    """Describe a recipe and where it would run. `estimate_rows`: see render.estimate."""
    recipe = summary.recipe
    model = recipe.model
    ratio = summary.tokens / summary.scaling_parameters
    every = recipe.checkpoint
    saves = [f"every {every.every_steps:,} steps"] if every.every_steps else []
    saves += [f"every {every.every_minutes:g} min"] if every.every_minutes else []
    rows = [
        (
            "model",
            f"{format_count(summary.parameters)} parameters: {plural(model.depth, 'layer')} x "
            f"{model.dim}, {plural(model.heads, 'head')} of {model.head_dim}, "
            f"{model.sequence_length:,} tokens of context",
        ),
        (
            "training",
            f"{recipe.steps_total:,} steps x {recipe.tokens_per_step:,} tokens = "
            f"{format_count(summary.tokens)} tokens ({_ratio(ratio)} per scaling parameter; "
            f"about 12 are optimal), {format_flops(summary.tokens * summary.flops_per_token)}",
        ),
        *summary.reasons.items(),
        *location.tuning.reasons.items(),
        ("text", text_description(recipe)),
        *estimate_rows,
        (
            "disk",
            f"{format_bytes(summary.checkpoint_bytes)} a checkpoint, the newest {every.keep} kept; "
            f"one {' and '.join([*saves, 'at the end'])}",
        ),
    ]
    if recipe.elastic and location.loaded is None:
        rows.append(("elastic", "this machine is the only one: it changes nothing"))
    elif recipe.elastic:
        rows.append(("elastic", "goes on without hosts that are lost, takes them back"))
    location_text = "this machine" if location.loaded is None else f"cluster {location.cluster}"
    unit = "worker" if location.loaded is None else "host"
    title = f"{name} on {location_text}, {location.workers} {unit}{'s' * (location.workers > 1)}"
    return "\n".join([title, *(_row(key, text) for key, text in rows)])


def _row(key: str, text: str) -> str:
    """Within a terminal's width; whole where scripts read it."""
    label = f"  {key:<10}"
    if not sys.stdout.isatty():
        return label + text
    return textwrap.fill(
        text, shutil.get_terminal_size().columns, break_long_words=False, break_on_hyphens=False,
        initial_indent=label, subsequent_indent=" " * len(label),
    )  # fmt: skip
