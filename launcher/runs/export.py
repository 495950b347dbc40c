"""A run's model as files for others: safetensors with a model card, or upstream's own layout."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from launcher.runs.checkpoint import newest_checkpoint
from launcher.runs.folder import RunFolder
from launcher.runs.spec import RunSpec
from launcher.version import __version__
from nanochat.atomic_write import write_atomically
from nanochat.file_hash import sha256_of
from nanochat.sizes import parameter_counts

LAYOUTS = ("safetensors", "nanochat")
FORMAT = "nanochat-safetensors"
FORMAT_VERSION = 1
FILES = ("README.md", "config.json", "model.safetensors", "tokenizer.json")
TRAINING = (
    "run", "steps", "planned", "tokens_per_step", "tokens", "source", "seed", "dtype", "val_bpb",
    "train_loss",
)  # fmt: skip
CARD = """\
---
library_name: nanochat
pipeline_tag: text-generation
---
# {run}

A nanochat model of {parameters:,} parameters ({depth} layers x {dim}, {heads} heads,
{context:,} tokens of context), trained for {steps:,} of {planned:,} steps of {tokens_per_step:,}
tokens on `{source}`.

| | |
|---|---|
| tokens | {tokens:,} |
| validation bits per byte | {val_bpb} |
| training loss, nats per token | {train_loss} |
| seed, dtype | {seed}, {dtype} |

`model.safetensors` has upstream's parameter names (karpathy/nanochat, July 2026), `config.json` the
shape, `tokenizer.json` the byte-level BPE: tokens in rank order in base64, special tokens last.
The architecture has value embeddings, gates, smear and backout: runtimes for nanochat's 2025
architecture do not run it. `launch import` reads this folder, and `launch export --format nanochat`
writes what upstream's tools load.
"""


def export(folder: RunFolder, target: Path, layout: str) -> dict[str, Any]:
    """Write the newest whole checkpoint's model into `target`, which is new or empty.

    {"step", "files": {name: sha256}}. Raises RunFailed where there is no checkpoint.
    """
    from nanochat.tokenizer import Tokenizer

    checkpoint = newest_checkpoint(folder)
    spec = folder.spec()
    recipe = spec.recipe
    target.mkdir(parents=True, exist_ok=True)
    if layout == "nanochat":
        from nanochat.upstream_checkpoint import UpstreamModel, write

        model = UpstreamModel(
            recipe.model, checkpoint.model_tensors(), Tokenizer.load(folder.tokenizer),
            checkpoint.step, checkpoint.state["val_bpb"],
        )  # fmt: skip
        tag = f"d{recipe.depth}"
        paths = write(target, tag, model, tokens_per_step=recipe.tokens_per_step)
    else:
        facts = _card_facts(folder.name, spec, checkpoint.state)
        shutil.copyfile(checkpoint.path / "model.safetensors", target / "model.safetensors")
        shutil.copyfile(folder.tokenizer, target / "tokenizer.json")
        config = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "model": asdict(recipe.model),
            "training": {key: facts[key] for key in TRAINING} | {"launch": __version__},
        }
        write_atomically(target / "config.json", json.dumps(config, indent=1).encode() + b"\n")
        write_atomically(target / "README.md", CARD.format(**facts).encode())
        paths = [target / name for name in FILES]
    names = {path.relative_to(target).as_posix(): sha256_of(path) for path in paths}
    return {"step": checkpoint.step, "files": names}


def _card_facts(run: str, spec: RunSpec, state: dict[str, Any]) -> dict[str, Any]:
    recipe = spec.recipe
    model = recipe.model
    return {
        "run": run,
        "parameters": parameter_counts(model).total,
        "depth": model.depth,
        "dim": model.dim,
        "heads": model.heads,
        "context": model.sequence_length,
        "steps": state["step"],
        "planned": recipe.steps_total,
        "tokens_per_step": recipe.tokens_per_step,
        "tokens": state["step"] * recipe.tokens_per_step,
        "source": recipe.data.source,
        "seed": recipe.seed,
        "dtype": spec.dtype or "float32",
        "val_bpb": state["val_bpb"],
        "train_loss": state["train_loss"],
    }
