"""What a recipe is about to do, in figures, before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from launcher.config.recipe import HORIZON_KEYS, Recipe
from nanochat.scaling import (
    REFERENCE_TOKENS_PER_STEP,
    TOKENS_PER_SCALING_PARAMETER,
    learning_rate_scale,
    muon_weight_decay,
)
from nanochat.sizes import checkpoint_bytes, flops_per_token, parameter_counts, state_bytes


@dataclass(frozen=True)
class RecipeSummary:
    """Sizes of the model, of its training and of a checkpoint. Bytes are for float32."""

    recipe: Recipe
    parameters: int
    scaling_parameters: int
    flops_per_token: int
    state_bytes: int
    checkpoint_bytes: int

    @property
    def tokens(self) -> int:
        return self.recipe.steps_total * self.recipe.tokens_per_step

    @property
    def reasons(self) -> dict[str, str]:
        """Why what the recipe leaves out is as it is."""
        recipe = self.recipe
        found = {}
        if "tokens_per_step" not in recipe.model_fields_set:
            found["batch"] = f"{recipe.tokens_per_step:,} tokens: upstream's rule for this size"
        if not recipe.model_fields_set & set(HORIZON_KEYS):
            ratio = TOKENS_PER_SCALING_PARAMETER
            found["horizon"] = f"{ratio:g} tokens per scaling parameter: about the compute optimum"
        scale = learning_rate_scale(recipe.tokens_per_step)
        decay = muon_weight_decay(recipe.model, recipe.tokens_per_step)
        found["rates"] = (
            f"upstream's x {scale:.3g}, the root of this batch / {REFERENCE_TOKENS_PER_STEP:,}; "
            f"weight decay {decay:.3g}; {recipe.warmup:,} steps of warm-up"
        )
        return found

    def as_json(self, name: str) -> dict[str, Any]:
        recipe = self.recipe
        return {
            "recipe": name,
            "cluster": "local",
            "parameters": self.parameters,
            "flops_per_token": self.flops_per_token,
            "state_bytes": self.state_bytes,
            "checkpoint_bytes": self.checkpoint_bytes,
            "steps": recipe.steps_total,
            "tokens_per_step": recipe.tokens_per_step,
            "tokens": self.tokens,
            "tokens_per_scaling_parameter": self.tokens / self.scaling_parameters,
            "flops": self.tokens * self.flops_per_token,
            "workers": recipe.workers,
            "data": recipe.text_source,
            "reasons": self.reasons,
            "settings": recipe.model_dump(mode="json", exclude={"guide"}),
        }


def summarize_recipe(recipe: Recipe) -> RecipeSummary:
    model = recipe.model
    counts = parameter_counts(model)
    return RecipeSummary(
        recipe=recipe,
        parameters=counts.total,
        scaling_parameters=counts.scaling,
        flops_per_token=flops_per_token(model),
        state_bytes=state_bytes(model),
        checkpoint_bytes=checkpoint_bytes(model),
    )
