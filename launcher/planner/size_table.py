"""The rows of the sizing table: our figures, worked out from the shape, beside the guide's."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from launcher.config.paths import list_config_files
from launcher.config.recipe import GuideFigures, Recipe, load_recipe
from launcher.errors import InputError
from launcher.planner.horizons import horizons
from launcher.planner.memory import peak_memory
from launcher.planner.public_runs import runs_of_depth
from nanochat.batch_split import largest_micro_batch
from nanochat.sizes import (
    ModelConfig,
    attention_flops,
    block_product_flops,
    flops_per_token,
    head_flops,
    parameter_counts,
    state_bytes,
    state_parts,
)

MAX_DEPTH = 100  # layers, as in recipes
TOLERANCE = 0.05  # the guide rounds to two digits: up to 5% is rounding


@dataclass(frozen=True)
class Size:
    """One model size, with the training that its recipe, or the rules for its depth, give it."""

    name: str
    recipe: Recipe

    @property
    def model(self) -> ModelConfig:
        return self.recipe.model

    @property
    def guide(self) -> GuideFigures:
        """What the guide says of it, if it knows it."""
        return self.recipe.guide

    def as_json(self) -> dict[str, Any]:
        """The object of `launch size --json`. state_bytes: all float32."""
        counts = parameter_counts(self.model)
        return {
            "name": self.name,
            "depth": self.model.depth,
            "dim": self.model.dim,
            "heads": self.model.heads,
            "parameters": {
                "total": counts.total,
                "wte": counts.wte,
                "value_embeds": counts.value_embeds,
                "lm_head": counts.lm_head,
                "matrices": counts.matrices,
                "scalars": counts.scalars,
                "scaling": counts.scaling,
            },
            "flops_per_token": flops_per_token(self.model),
            "sequence_length": self.model.sequence_length,
            "window_pattern": self.model.window_pattern,
            "state_bytes": state_bytes(self.model),
            "guide": self.guide.figures(),
            "flops_parts": {
                "block_products": block_product_flops(self.model),
                "attention": attention_flops(self.model),
                "head": head_flops(self.model),
                "six_n": six_n(self.model),
            },
            "state": {
                "float32": _state(self.recipe, device="cpu"),
                "bfloat16_tables": _state(self.recipe, device="cuda"),
            },
            "horizons": horizons(self.recipe),
            "public_runs": [run.as_json() for run in runs_of_depth(self.model.depth)],
        }


def six_n(model: ModelConfig) -> int:
    """6 x all parameters: the common estimate of training FLOPs per token, which misleads here, for
    most of them are lookup tables."""
    return 6 * parameter_counts(model).total


def _state(recipe: Recipe, *, device: str) -> dict[str, int]:
    """Of one rank that takes all rows: what it holds between steps, and its peak in one, with
    passes as large as the training makes them and checkpoints on the way."""
    model, bf16 = recipe.model, device == "cuda"
    parts = state_parts(model, bf16_tables=bf16)
    rows = largest_micro_batch(recipe.rows_per_step, model.sequence_length, device)
    dtype = "bfloat16" if bf16 else "float32"
    rows = min(recipe.micro_batch or rows, recipe.rows_per_step)
    passes = math.ceil(recipe.rows_per_step / rows)
    peak = peak_memory(model, rows, device=device, dtype=dtype, passes=passes)
    return asdict(parts) | {"total": parts.total, "peak": peak.total}


def find_size(name: str) -> Size:
    """The size of a recipe (by name or path), or of dN with the defaults of a recipe."""
    depth = re.fullmatch(r"d([0-9]+)", name)
    if depth is None or any(recipe.name == name for recipe in list_config_files("recipe")):
        loaded = load_recipe(name)
        return Size(loaded.name, loaded.recipe)
    if not 1 <= int(depth[1]) <= MAX_DEPTH:
        raise InputError(f"no size {name}: depths go from 1 to {MAX_DEPTH}", fix="launch size d12")
    return Size(name, Recipe(depth=int(depth[1])))


def all_sizes() -> list[Size]:
    """Those of all recipes that a name can reach, shallow ones first."""
    sizes = [find_size(recipe.name) for recipe in list_config_files("recipe")]
    return sorted(sizes, key=lambda size: (size.model.depth, size.name))
