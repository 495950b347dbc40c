"""Weights and tokenizers to and from karpathy/nanochat's own files (July 2026).

    BASE/base_checkpoints/TAG/model_000123.pt  meta_000123.json
    BASE/tokenizer/tokenizer.pkl  token_bytes.pt

BASE is what upstream's tools call NANOCHAT_BASE_DIR. Parameters have the same names and shapes on
both sides. Of a pickle, plain data and the shape of tiktoken's Encoding are read and nothing else.
"""

from __future__ import annotations

import io
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiktoken
import torch
from torch import Tensor

from nanochat.atomic_write import write_atomically
from nanochat.errors import DataError
from nanochat.sizes import ModelConfig, parameter_shapes
from nanochat.tokenizer import SPECIAL_TOKENS, Tokenizer

CHECKPOINTS, TOKENIZER = "base_checkpoints", "tokenizer"
ENCODING = ("tiktoken.core", "Encoding")


@dataclass(frozen=True)
class UpstreamModel:
    """`tensors`: by upstream's and our names."""

    config: ModelConfig
    tensors: dict[str, Tensor]
    tokenizer: Tokenizer
    step: int
    val_bpb: float | None


def write(base: Path, tag: str, model: UpstreamModel, *, tokens_per_step: int) -> list[Path]:
    """The files that upstream's load_model("base", ...) and get_tokenizer read. Their paths."""
    config = model.config
    meta = {
        "step": model.step,
        "val_bpb": model.val_bpb,
        "model_config": {
            "sequence_len": config.sequence_length,
            "vocab_size": config.vocab_size,
            "n_layer": config.depth,
            "n_head": config.heads,
            "n_kv_head": config.heads,
            "n_embd": config.dim,
            "window_pattern": config.window_pattern,
        },
        "user_config": {},
        "device_batch_size": 1,
        "max_seq_len": config.sequence_length,
        "total_batch_size": tokens_per_step,
        "dataloader_state_dict": None,
        "loop_state": {
            "min_val_bpb": model.val_bpb, "smooth_train_loss": 0.0, "total_training_time": 0.0,
        },
    }  # fmt: skip
    token_bytes = torch.from_numpy(model.tokenizer.token_bytes())
    files = {
        f"{CHECKPOINTS}/{tag}/model_{model.step:06d}.pt": _saved(model.tensors),
        f"{CHECKPOINTS}/{tag}/meta_{model.step:06d}.json": json.dumps(meta, indent=2).encode(),
        f"{TOKENIZER}/tokenizer.pkl": pickle.dumps(_encoding(model.tokenizer)),
        f"{TOKENIZER}/token_bytes.pt": _saved(token_bytes),
    }
    for name, content in files.items():
        write_atomically(base / name, content)
    return [base / name for name in files]


def read(folder: Path) -> UpstreamModel:
    """`folder`: a base folder with one checkpoint's tag, or a tag's folder inside one.

    The newest step. Raises DataError where something is missing, damaged or not nanochat's.
    """
    tag = _tag_folder(folder)
    steps = sorted(int(match[1]) for path in tag.iterdir() if (match := _MODEL.match(path.name)))
    if not steps:
        raise DataError(f"{tag}: no model_*.pt in it", fix="name upstream's base folder")
    step = steps[-1]
    meta = _meta(tag / f"meta_{step:06d}.json")
    config = _config(tag / f"meta_{step:06d}.json", meta)
    tensors = _tensors(tag / f"model_{step:06d}.pt", config)
    tokenizer = read_tokenizer(tag.parents[1] / TOKENIZER / "tokenizer.pkl")
    if tokenizer.vocab_size != config.vocab_size:
        raise DataError(
            f"{tag}: the model has a vocabulary of {config.vocab_size:,}, the tokenizer beside it "
            f"one of {tokenizer.vocab_size:,}",
            fix="copy the tokenizer that the model was trained with there",
        )
    return UpstreamModel(config, tensors, tokenizer, step, meta.get("val_bpb"))


def read_tokenizer(path: Path) -> Tokenizer:
    """Of upstream's tokenizer.pkl. Raises DataError where it holds anything else."""
    try:
        shape = _EncodingUnpickler(io.BytesIO(path.read_bytes())).load()
        return _tokenizer(shape)
    except OSError as error:
        raise DataError(f"{path}: cannot read the tokenizer: {error.strerror}") from error
    except (
        pickle.UnpicklingError, EOFError, ValueError, KeyError, TypeError, IndexError,
        AttributeError,
    ) as error:  # fmt: skip
        raise DataError(f"{path}: not upstream's tokenizer: {error}") from error


_MODEL = re.compile(r"model_(\d+)\.pt$")


class _Shape:
    """Stands in for tiktoken's Encoding, whose own __setstate__ loads plugins by name."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _EncodingUnpickler(pickle.Unpickler):
    """Builds plain data and `_Shape`, and calls nothing."""

    def find_class(self, module: str, name: str) -> type[_Shape]:
        if (module, name) == ENCODING:
            return _Shape
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _tokenizer(shape: Any) -> Tokenizer:
    if type(shape) is not _Shape or type(shape.state) is not dict:
        raise ValueError("it is no Encoding with its own tokens")
    state = shape.state
    ranks, special, pattern = state["mergeable_ranks"], state["special_tokens"], state["pat_str"]
    if type(ranks) is not dict or not all(type(token) is bytes for token in ranks):
        raise ValueError("its tokens are not bytes")
    tokens = sorted(ranks, key=ranks.__getitem__)
    if [ranks[token] for token in tokens] != list(range(len(tokens))):
        raise ValueError("its tokens are not numbered through")
    if set(tokens[:256]) != {bytes([byte]) for byte in range(256)}:
        raise ValueError("its first 256 tokens are not the single bytes")
    if type(special) is not dict or set(special) != set(SPECIAL_TOKENS):
        raise ValueError("its special tokens are not nanochat's")
    vocab_size = max(special.values()) + 1
    expected = range(vocab_size - len(SPECIAL_TOKENS), vocab_size)
    if [special[name] for name in SPECIAL_TOKENS] != list(expected) or expected[0] < len(tokens):
        raise ValueError("its special tokens are not the last ones")
    if type(pattern) is not str:
        raise ValueError("its pattern is not a string")
    return Tokenizer(tokens, vocab_size, pattern)


def _encoding(tokenizer: Tokenizer) -> tiktoken.Encoding:
    """As upstream's tok_train.py makes one."""
    return tiktoken.Encoding(
        name="rustbpe",
        pat_str=tokenizer.pattern,
        mergeable_ranks={token: rank for rank, token in enumerate(tokenizer.tokens)},
        special_tokens=tokenizer.special_ids,
    )


def _saved(content: Tensor | Mapping[str, Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _tag_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    if any(_MODEL.match(path.name) for path in folder.iterdir()):
        return folder
    inside = folder / CHECKPOINTS
    if not inside.is_dir():
        raise DataError(f"{folder}: no model in it, neither config.json nor {CHECKPOINTS}/")
    tags = sorted(path for path in inside.glob("*") if path.is_dir())
    if len(tags) != 1:
        found = ", ".join(path.name for path in tags) or "none"
        raise DataError(f"{folder}: {found} in {CHECKPOINTS}/", fix=f"name one: {inside}/TAG")
    return tags[0]


def _meta(path: Path) -> dict[str, Any]:
    try:
        meta: dict[str, Any] = json.loads(path.read_text())
    except OSError as error:
        raise DataError(f"{path}: cannot read it: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    return meta


def _config(path: Path, meta: Mapping[str, Any]) -> ModelConfig:
    try:
        given = meta["model_config"]
        if given["n_kv_head"] != given["n_head"]:
            raise DataError(f"{path}: grouped-query attention is not supported")
        config = ModelConfig(
            depth=given["n_layer"],
            head_dim=given["n_embd"] // given["n_head"],
            sequence_length=given["sequence_len"],
            window_pattern=given.get("window_pattern", "L"),
            vocab_size=given["vocab_size"],
        )
        if config.dim != given["n_embd"]:
            raise DataError(
                f"{path}: width {given['n_embd']} is not {config.dim}, which depth {config.depth} "
                f"and heads of {config.head_dim} give"
            )
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise DataError(f"{path}: no model_config of nanochat in it ({error})") from error
    return config


def _tensors(path: Path, config: ModelConfig) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise DataError(f"{path}: not weights of torch: {error}") from error
    return check_tensors({n.removeprefix("_orig_mod."): t for n, t in loaded.items()}, config, path)


def check_tensors(
    tensors: Mapping[str, Tensor], config: ModelConfig, path: Path
) -> dict[str, Tensor]:
    """In float32. Raises DataError, with `path`, where they are not a model's of this shape."""
    shapes = parameter_shapes(config)
    wrong = sorted(
        name
        for name in tensors.keys() | shapes.keys()
        if name not in tensors or tuple(tensors[name].shape) != shapes.get(name)
    )
    if wrong:
        raise DataError(
            f"{path}: not the parameters of this architecture: {', '.join(wrong[:4])}",
            fix="import a model of upstream's version of July 2026: others cannot be read",
        )
    return {name: tensor.float() for name, tensor in tensors.items()}
