"""How long a size trains, counted in every way that people count it."""

from __future__ import annotations

from typing import Any

from launcher.config.recipe import Recipe
from launcher.planner.public_runs import optimum_range, upstream_sweep
from nanochat.scaling import TOKENS_PER_SCALING_PARAMETER
from nanochat.sizes import ModelConfig, parameter_counts


def optimal_tokens(model: ModelConfig) -> int:
    """About the compute optimum, by upstream's rule."""
    return round(TOKENS_PER_SCALING_PARAMETER * parameter_counts(model).scaling)


def horizons(recipe: Recipe) -> dict[str, Any]:
    """Of `launch size --json`. `guide` is None where the guide has no horizon for the size; its own
    ratio counts the parameters that it gives."""
    model, guide = recipe.model, recipe.guide
    low, high = optimum_range()
    scaling = parameter_counts(model).scaling
    found: dict[str, Any] = {
        "optimal": count_horizon(optimal_tokens(model), model),
        "public_range": {
            "low": count_horizon(round(low * scaling), model),
            "high": count_horizon(round(high * scaling), model),
            "source": upstream_sweep().source,
        },
        "recipe": {
            "steps": recipe.steps_total,
            "tokens_per_step": recipe.tokens_per_step,
            **count_horizon(recipe.steps_total * recipe.tokens_per_step, model),
        },
        "guide": None,
    }
    if guide.steps is not None and guide.tokens_per_step is not None:
        found["guide"] = {
            "steps": guide.steps,
            "tokens_per_step": guide.tokens_per_step,
            **count_horizon(guide.steps * guide.tokens_per_step, model),
            "says_per_parameter": guide.tokens_per_parameter,
        }
    return found


def count_horizon(tokens: int, model: ModelConfig) -> dict[str, Any]:
    """Tokens, and tokens per parameter by each convention; `of_optimal`: 1 is the optimum."""
    counts = parameter_counts(model)
    return {
        "tokens": tokens,
        "per_parameter": tokens / counts.total,
        "per_scaling_parameter": tokens / counts.scaling,
        "of_optimal": tokens / optimal_tokens(model),
    }
