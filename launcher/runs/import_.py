"""Models of others as runs of this machine: they can be listed, sampled and exported."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from launcher.config.recipe import DataSettings, Recipe
from launcher.runs.events import EventLog, ImportEvent
from launcher.runs.export import FORMAT, FORMAT_VERSION
from launcher.runs.folder import RunFolder, create_run
from launcher.runs.spec import RunSpec
from launcher.runs.summary import Summary
from nanochat.errors import DataError
from nanochat.sizes import ModelConfig
from nanochat.upstream import UpstreamModel, read

UNKNOWN = "unknown"  # the text of a model whose files do not say


def import_run(source: Path, name: str | None) -> RunFolder:
    """From a folder that `launch export` or upstream has written. The new run.

    Raises DataError where it is neither, InputError for a name that is taken.
    """
    from nanochat.checkpoint import CheckpointFolder

    model, facts = _read_export(source) if (source / "config.json").exists() else (read(source), {})
    tokens_per_step = facts.get("tokens_per_step", model.config.sequence_length)
    recipe = Recipe(
        depth=model.config.depth,
        head_dim=model.config.head_dim,
        sequence_length=model.config.sequence_length,
        window_pattern=model.config.window_pattern,
        vocab_size=model.config.vocab_size,
        tokens_per_step=tokens_per_step,
        steps=max(1, model.step),
        data=DataSettings(source=facts.get("source", UNKNOWN)),
    )
    now = time.time()
    spec = RunSpec(
        recipe_name=f"d{recipe.depth}", cluster="local", created=now, entered=now,
        steps=recipe.steps_total, folder=str(Path.cwd()),
        settings=recipe.model_dump(mode="json"), imported_from=str(source.absolute()),
    )  # fmt: skip
    folder = create_run(name, spec.recipe_name, spec)
    train_loss = facts.get("train_loss")
    figures: dict[str, Any] = {"train_loss": train_loss, "val_bpb": model.val_bpb}
    state = {"step": model.step, "identity": {}, **figures}
    saved = CheckpointFolder(folder.checkpoints).save(state, model.tensors, {})
    model.tokenizer.save(folder.tokenizer)
    summary = Summary(
        run=folder.name, recipe=spec.recipe_name, cluster="local", steps=model.step,
        tokens=model.step * tokens_per_step, seconds=0.0, tokens_per_second=None,
        checkpoint=str(saved.path), restarts=0, status="imported", **figures,
    )  # fmt: skip
    with EventLog(folder.events) as events:
        events.write(ImportEvent.now(source=str(source.absolute()), step=model.step))
    summary.write(folder.summary_file)
    return folder


def _read_export(source: Path) -> tuple[UpstreamModel, dict[str, Any]]:
    """What `launch export` has written, and its facts about the training."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from nanochat.tokenizer import Tokenizer
    from nanochat.upstream import check_tensors

    path = source / "config.json"
    try:
        config = json.loads(path.read_text())
        if (config["format"], config["version"]) != (FORMAT, FORMAT_VERSION):
            raise ValueError("another format")
        facts, shape = config["training"], ModelConfig(**config["model"])
        tensors = check_tensors(load_file(source / "model.safetensors"), shape, path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{source}: cannot read it: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not what `launch export` writes: {error}") from error
    tokenizer = Tokenizer.load(source / "tokenizer.json")
    return UpstreamModel(shape, tensors, tokenizer, facts["steps"], facts["val_bpb"]), facts
