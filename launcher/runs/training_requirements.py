"""What a run needs to train: packages, cores, rows for every host, text."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from launcher.config.paths import launch_home
from launcher.config.recipe import LoadedRecipe, format_rows
from launcher.errors import InputError, MissingExtra
from launcher.hosts.local_gpus import has_gpu
from nanochat.batch_split import split_rows
from nanochat.dataset.climbmix import CLIMBMIX
from nanochat.dataset.sources import parse_source
from nanochat.errors import DataError

TRAINING_PACKAGES = ("torch", "ray", "tiktoken", "rustbpe", "pyarrow", "safetensors", "psutil")


def missing_packages() -> list[str]:
    """What this Python lacks to train, or to run a model."""
    return [name for name in TRAINING_PACKAGES if importlib.util.find_spec(name) is None]


def require_training_packages(command: str) -> None:
    """Raises MissingExtra where this Python cannot train."""
    if missing := missing_packages():
        raise MissingExtra(
            f"`{command}` needs packages that are not installed here: {', '.join(missing)}",
            fix="pip install 'nanochat-launcher[train]', or in a checkout: pip install '.[train]'",
        )


def require_cores(loaded: LoadedRecipe) -> None:
    """Raises ConfigError where this machine lacks the recipe's cores: nothing is started."""
    if not sys.platform.startswith("linux"):
        raise InputError("training needs Linux", fix="train on machines that have it: --cluster C")
    workers, cores = loaded.recipe.workers, len(os.sched_getaffinity(0))
    if workers > cores and not has_gpu():
        raise loaded.error("workers", f"{workers} on a machine of {cores} cores")


def require_rows_for_all(loaded: LoadedRecipe, cluster: str, shares: Mapping[str, float]) -> None:
    """Raises ConfigError where a host would get no row of a step. `shares`: by node."""
    recipe, rows = loaded.recipe, loaded.recipe.rows_per_step
    if recipe.workers not in (1, len(shares)):
        message = (
            f"{recipe.workers}, but each of the {len(shares)} hosts of {cluster} is one worker"
        )
        raise loaded.error("workers", message, fix="leave workers out")
    rows_by_node = dict(zip(shares, split_rows(rows, list(shares.values())), strict=True))
    empty = [name for name, node_rows in rows_by_node.items() if not node_rows]
    if empty:
        raise loaded.error(
            "tokens_per_step",
            f"{format_rows(rows)} per step leave none for {', '.join(empty)} of {cluster}",
            fix="more tokens per step, fewer hosts (--pool), or other shares in the cluster file",
        )


def require_text(loaded: LoadedRecipe, base: Path, *, is_local: bool) -> None:
    """Raises ConfigError if the recipe's text is missing. `base`: where relative patterns begin;
    `is_local`: the run trains on this machine."""
    recipe = loaded.recipe
    data = recipe.data
    for key, text in (("data.source", recipe.text_source), ("data.validation", data.validation)):
        if text is None or (text.startswith("host:") and not is_local):
            continue
        shards = launch_home() / "data" / CLIMBMIX
        try:
            parse_source(text, base, shards=shards, mirror=data.mirror)
        except DataError as error:
            shown_key = "data.mirror" if key == "data.source" and data.mirror else key
            raise loaded.error(shown_key, error.message, fix=error.fix) from error
