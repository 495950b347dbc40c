"""Starting the driver of a run, and stopping it."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from launcher.config.paths import launch_home
from launcher.config.recipe import LoadedRecipe, format_rows
from launcher.errors import InputError, MissingExtra, RunFailed
from launcher.hosts.local_gpus import has_gpu
from launcher.runs.folder import RunFolder
from launcher.runs.spec import RunSpec
from nanochat.batch_split import split_rows
from nanochat.dataset.climbmix import CLIMBMIX
from nanochat.dataset.sources import parse_source
from nanochat.errors import DataError

START_SECONDS = 60.0
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
    dealt = dict(zip(shares, split_rows(rows, list(shares.values())), strict=True))
    empty = [name for name, share in dealt.items() if not share]
    if empty:
        raise loaded.error(
            "tokens_per_step",
            f"{format_rows(rows)} per step leave none for {', '.join(empty)} of {cluster}",
            fix="more tokens per step, fewer hosts (--pool), or other shares in the cluster file",
        )


def require_text(loaded: LoadedRecipe, base: Path, *, here: bool) -> None:
    """Raises ConfigError where the recipe's text is not there. `base`: where relative patterns
    begin; `here`: hosts are this machine."""
    recipe = loaded.recipe
    data = recipe.data
    for key, text in (("data.source", recipe.text_source), ("data.validation", data.validation)):
        if text is None or (text.startswith("host:") and not here):
            continue
        shards = launch_home() / "data" / CLIMBMIX
        try:
            parse_source(text, base, shards=shards, mirror=data.mirror)
        except DataError as error:
            named = "data.mirror" if key == "data.source" and data.mirror else key
            raise loaded.error(named, error.message, fix=error.fix) from error


def run_spec(loaded: LoadedRecipe, *, cluster: str, entered: float) -> RunSpec:
    """Return what the run.json of a new run says from the start."""
    recipe = loaded.recipe
    settings = recipe.model_dump(mode="json")
    settings["data"]["source"] = recipe.text_source  # with a number of shards that stays
    return RunSpec(
        recipe_name=loaded.name,
        recipe_file=str(loaded.path.absolute()),
        cluster=cluster,
        created=time.time(),
        entered=entered,
        steps=recipe.steps_total,
        folder=str(Path.cwd()),
        settings=settings,
    )


class DriverProcess:
    """The driver of a run as this process sees it. It has its own session: Ctrl-C is ours alone."""

    def __init__(self, folder: RunFolder, *, detach: bool) -> None:
        """Start it and wait until it holds the run's folder. Raises RunFailed where it dies first.

        Attached, it takes the closing of its standard input for our death, and stops the run.
        """
        folder.stop_request.unlink(missing_ok=True)
        self.folder = folder
        with folder.log.open("ab") as log:
            self.process = subprocess.Popen(
                # -P: a folder named nanochat or launcher in the user's own place is not ours.
                [sys.executable, "-P", "-m", "launcher.training", str(folder.path)],
                stdin=subprocess.DEVNULL if detach else subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder.path,
                env={
                    **os.environ,
                    "PYTHONSAFEPATH": "1",
                    "PYTHONUNBUFFERED": "1",
                    "LAUNCH_HOME": str(launch_home()),
                },
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not folder.is_locked():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RunFailed("the driver of the run did not start", fix=f"see {folder.log}")
            time.sleep(0.02)

    def end_now(self) -> None:
        """Without a checkpoint."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        return self.process.wait()
