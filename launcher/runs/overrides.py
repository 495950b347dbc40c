"""What may be set otherwise when a run goes on: how it is watched and kept, not what it is.

micro_batch is among them for the memory that it takes; it changes the last digits of losses."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from launcher.config.recipe import LoadedRecipe, Recipe
from launcher.config.validation import validate
from launcher.config.yaml_source import Problem, format_key, parse_yaml
from launcher.errors import InputError
from launcher.runs.folder import RunFolder
from launcher.runs.spec import OTHER_VERSION_FIX, RunSpec
from nanochat.dataset.climbmix import is_address
from nanochat.dataset.files import expanded

CHANGEABLE_KEYS = (
    "checkpoint.every_steps", "checkpoint.every_minutes", "checkpoint.keep",
    "evaluation.every_steps", "micro_batch", "data.mirror",
)  # fmt: skip


NEEDED_FIELDS, NEEDED_FIELDS_ON_CLUSTER = ("folder", "settings"), ("nodes", "pool")


def require_complete_spec(folder: RunFolder) -> RunSpec:
    """Return the spec. Raises InputError if run.json lacks what the run needs to continue."""
    spec = folder.spec(strict=True)
    needed = NEEDED_FIELDS if spec.cluster == "local" else NEEDED_FIELDS + NEEDED_FIELDS_ON_CLUSTER
    if keys := spec.missing_keys(*needed):
        raise InputError(f"{folder.spec_file} lacks {', '.join(keys)}", fix=OTHER_VERSION_FIX)
    return spec


def needs_new_run(fix: str, *, steps: int) -> bool:
    """Whether this advice after a failure cannot be followed by a run that goes on.

    `steps`: that it has made; text that was good enough for these can be brought back.
    """
    keys = re.findall(r"--set ([\w.]+)", fix)
    return any(key not in CHANGEABLE_KEYS for key in keys) or (steps == 0 and "--data" in fix)


def require_settings(settings: Sequence[str]) -> None:
    """Raises TypeError for one string: a program that means a list of one."""
    if isinstance(settings, str):
        raise TypeError(f"settings: a list such as [{settings!r}], not one string")


def apply_overrides(spec: RunSpec, settings: Sequence[str]) -> LoadedRecipe:
    """The recipe of a run.json with `settings`, KEY=VALUE as typed, laid over it.

    Raises ConfigError for a key that would make it another run.
    """
    source = parse_yaml(
        json.dumps(spec.settings, indent=1).encode(), "run.json", fix=OTHER_VERSION_FIX
    )
    for setting in settings:
        source.override_pair("--set", setting)
    for path in source.overridden:
        if format_key(path) not in CHANGEABLE_KEYS:
            key = format_key(path)
            problem = Problem(source.keys[path], f"{key} cannot change when a run goes on")
            error = source.error(problem)
            error.fix = f"begin a new run for it; these may change: {', '.join(CHANGEABLE_KEYS)}"
            raise error
    recipe = validate(Recipe, source)
    mirror = recipe.data.mirror
    if ("data", "mirror") in source.overridden and mirror and not is_address(mirror):
        # The run's own folder of reference is where it was begun.
        data = recipe.data.model_copy(update={"mirror": str(Path.cwd() / expanded(mirror))})
        recipe = recipe.model_copy(update={"data": data})
    return LoadedRecipe(spec.recipe_name, Path(spec.recipe_file), recipe, source)
