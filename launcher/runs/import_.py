"""Models of others as runs of this machine: they can be listed, sampled and exported."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from launcher.config.recipe import DataSettings, Recipe
from launcher.runs.events import EventLog, ImportEvent
from launcher.runs.export import FORMAT, FORMAT_VERSION
from launcher.runs.folder import RunFolder, create_run
from launcher.runs.foreign_json import parse_json_object
from launcher.runs.record import Count, Record
from launcher.runs.spec import RunSpec
from launcher.runs.summary import Summary
from nanochat.errors import DataError
from nanochat.sizes import ModelConfig
from nanochat.upstream_checkpoint import UpstreamModel, read

UNKNOWN = "unknown"  # the text of a model whose files do not say


def import_run(source: Path, name: str | None) -> RunFolder:
    """From a folder that `launch export` or upstream has written. The new run.

    Raises DataError where it is neither, InputError for a name that is taken.
    """
    from nanochat.checkpoint import CheckpointFolder

    if (source / "config.json").exists():
        model, facts = _read_export(source)
    else:
        model = read(source)
        facts = _require_training({"steps": model.step, "val_bpb": model.val_bpb}, source)
    tokens_per_step = facts.tokens_per_step or model.config.sequence_length
    try:
        recipe = Recipe(
            depth=model.config.depth,
            head_dim=model.config.head_dim,
            sequence_length=model.config.sequence_length,
            window_pattern=model.config.window_pattern,
            vocab_size=model.config.vocab_size,
            tokens_per_step=tokens_per_step,
            steps=max(1, model.step),
            data=DataSettings(source=facts.source),
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "config"
        raise DataError(f"{source}: {key}: {first['msg'].lower()}") from None
    now = time.time()
    spec = RunSpec(
        recipe_name=f"d{recipe.depth}", cluster="local", created=now, entered=now,
        steps=recipe.steps_total, folder=str(Path.cwd()),
        settings=recipe.model_dump(mode="json"), imported_from=str(source.absolute()),
    )  # fmt: skip
    folder = create_run(name, spec.recipe_name, spec)
    state: dict[str, Any] = {"step": model.step, "identity": {}}
    state |= {"train_loss": facts.train_loss, "val_bpb": facts.val_bpb}
    saved = CheckpointFolder(folder.checkpoints).save(state, model.tensors, {})
    model.tokenizer.save(folder.tokenizer)
    summary = Summary(
        run=folder.name, recipe=spec.recipe_name, cluster="local", steps=model.step,
        tokens=model.step * tokens_per_step, seconds=0.0, tokens_per_second=None,
        checkpoint=str(saved.path), restarts=0, status="imported",
        train_loss=facts.train_loss, val_bpb=facts.val_bpb,
    )  # fmt: skip
    with EventLog(folder.events) as events:
        events.write(ImportEvent.now(source=str(source.absolute()), step=model.step))
    summary.write(folder.summary_file)
    return folder


class _Training(Record):
    """What the config.json of an export says of the training."""

    steps: Count
    val_bpb: float | None = None
    tokens_per_step: Annotated[int, Field(ge=1, le=2**40)] | None = None
    source: str = UNKNOWN
    train_loss: float | None = None


def _require_training(content: Any, file: Path) -> _Training:
    try:
        return _Training.require(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, ("training", *first["loc"])))
        raise DataError(f"{file}: {key}: {first['msg'].lower()}") from None


def _read_export(source: Path) -> tuple[UpstreamModel, _Training]:
    """What `launch export` has written, and its facts about the training."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from nanochat.tokenizer import Tokenizer
    from nanochat.upstream_checkpoint import check_tensors

    path = source / "config.json"
    try:
        config = parse_json_object(path.read_bytes())
        if config is None:
            raise ValueError("no JSON object")
        if (config["format"], config["version"]) != (FORMAT, FORMAT_VERSION):
            raise ValueError("another format")
        facts, shape = _require_training(config["training"], path), ModelConfig(**config["model"])
        tensors = check_tensors(load_file(source / "model.safetensors"), shape, path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{source}: cannot read it: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not what `launch export` writes: {error}") from error
    tokenizer = Tokenizer.load(source / "tokenizer.json")
    return UpstreamModel(shape, tensors, tokenizer, facts.steps, facts.val_bpb), facts
