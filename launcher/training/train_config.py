"""What a recipe means to nanochat's train function."""

from __future__ import annotations

from dataclasses import replace

from launcher.config.recipe import Recipe
from launcher.runs.spec import RunSpec
from nanochat.train_config import TrainConfig


def run_config(spec: RunSpec) -> TrainConfig:
    """Return what a run trains with."""
    lengths = {n for change in spec.extended for n in (change.from_steps, change.to_steps)}
    config = train_config(spec.recipe)
    return replace(config, extended_from=tuple(sorted(lengths - {config.steps})))


def train_config(recipe: Recipe) -> TrainConfig:
    return TrainConfig(
        model=recipe.model,
        steps=recipe.steps_total,
        tokens_per_step=recipe.tokens_per_step,
        warmup_steps=recipe.warmup,
        seed=recipe.seed,
        micro_batch=recipe.micro_batch,
        evaluate_every_steps=recipe.evaluation.every_steps,
        evaluate_tokens=recipe.evaluation.tokens,
        checkpoint_every_steps=recipe.checkpoint.every_steps,
        checkpoint_every_minutes=recipe.checkpoint.every_minutes,
        checkpoint_keep=recipe.checkpoint.keep,
    )
