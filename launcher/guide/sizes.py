"""The rows of the sizing table: our figures, worked out from the shape, beside the guide's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from launcher.config.paths import list_files
from launcher.config.recipe import Guide, load_recipe
from launcher.errors import InputError
from nanochat.sizes import ModelConfig, flops_per_token, parameter_counts, state_bytes

DEEPEST = 100  # layers, as in recipes


@dataclass(frozen=True)
class Size:
    """One model size. `guide` has what the guide says of it, if it knows it."""

    name: str
    model: ModelConfig
    guide: Guide

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
        }


def find_size(name: str) -> Size:
    """The size of a recipe (by name or path), or of dN with the defaults of a recipe."""
    depth = re.fullmatch(r"d([0-9]+)", name)
    if depth is None or any(recipe.name == name for recipe in list_files("recipe")):
        loaded = load_recipe(name)
        return Size(loaded.name, loaded.recipe.model, loaded.recipe.guide)
    if not 1 <= int(depth[1]) <= DEEPEST:
        raise InputError(f"no size {name}: depths go from 1 to {DEEPEST}", fix="launch size d12")
    return Size(name, ModelConfig(depth=int(depth[1])), Guide())


def all_sizes() -> list[Size]:
    """Those of all recipes that a name can reach, shallow ones first."""
    sizes = [find_size(recipe.name) for recipe in list_files("recipe")]
    return sorted(sizes, key=lambda size: (size.model.depth, size.name))
