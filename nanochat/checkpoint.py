"""Checkpoints that are whole or absent, and that know which run they belong to.

    checkpoints/step-00000020/
        model.safetensors  optimizer.safetensors  state.json
        manifest.json       bytes and sha256 of each, written last

A checkpoint is written under a temporary name, flushed to the disk and renamed. Hashes are of what
was written, taken on the way. What is loaded is verified first; a torn or altered one is passed
over for the newest whole one.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from nanochat.atomic_write import replace_durably
from nanochat.disk_space import free_bytes
from nanochat.errors import CheckpointError
from nanochat.file_hash import sha256_of
from nanochat.hashed_file import write_hashed
from nanochat.tensor_file import safetensors_parts

FORMAT = 1
FREE_SPACE_FIX = "free some space there and resume: what is saved already is complete"
MODEL, OPTIMIZER, STATE, MANIFEST = (
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "manifest.json",
)


@dataclass(frozen=True)
class Checkpoint:
    """A whole, verified checkpoint on disk."""

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])

    def model_tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = load_file(self.path / MODEL)
        return tensors

    def optimizer_tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = load_file(self.path / OPTIMIZER)
        return tensors


class CheckpointFolder:
    """The checkpoints of one run on one machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(
        self, state: dict[str, Any], model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]
    ) -> Checkpoint:
        """Write a checkpoint of `state["step"]`; on failure leave no trace of it.

        Raises CheckpointError where the disk is full or cannot be written.
        """
        final = self.path_of(state["step"])
        partial = self.path / f".partial-{final.name}"
        need = sum(t.numel() * t.element_size() for t in (*model.values(), *optimizer.values()))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._remove(partial)
            free = free_bytes(self.path)
            if free < need:
                raise CheckpointError(
                    f"the disk is full: a checkpoint needs {need / 1e6:,.0f} MB, "
                    f"{free / 1e6:,.0f} MB are free at {self.path}",
                    fix=FREE_SPACE_FIX,
                )
            partial.mkdir()
            contents = {
                MODEL: safetensors_parts(model),
                OPTIMIZER: safetensors_parts(optimizer),
                STATE: _json_parts(state),
            }
            files = {name: write_hashed(partial / name, parts) for name, parts in contents.items()}
            write_hashed(partial / MANIFEST, _json_parts({"format": FORMAT, "files": files}))
            self._remove(final)  # left by an attempt whose copy was found to be torn
            replace_durably(partial, final)
        except OSError as error:
            self._remove(partial)
            raise CheckpointError(
                f"cannot write a checkpoint of {need / 1e6:,.0f} MB at {final}: {error}",
                fix=FREE_SPACE_FIX,
            ) from error
        return Checkpoint(final, state)

    def path_of(self, step: int) -> Path:
        """Return the folder of a step's checkpoint."""
        return self.path / f"step-{step:08d}"

    def newest(self, *, weights_only: bool = False) -> Checkpoint | None:
        """The newest whole checkpoint; None where there is none.

        weights_only: what generates text; the optimizer's file may be missing.
        """
        names = (MODEL, STATE) if weights_only else (MODEL, OPTIMIZER, STATE)
        for path in self._newest_first():
            checkpoint = verify_checkpoint(path, names)
            if checkpoint is not None:
                return checkpoint
        return None

    def prune(self, keep: int, step: int) -> None:
        """Keep the checkpoint just saved at `step` and the `keep` - 1 before it.

        The newest whole one never goes: before an older one does, the one just saved is read back.
        Newer ones are those that were torn when the run was resumed, and go if they are. What
        interrupted saves have left goes too.

        Raises CheckpointError where the one just saved is not what was written; nothing has gone
        then.
        """
        paths = self._newest_first()
        steps = [int(path.name.removeprefix("step-")) for path in paths]
        kept = [saved for saved in steps if saved <= step][:keep]
        older = [saved for saved in steps if saved <= step and saved not in kept]
        if older and verify_checkpoint(self.path_of(step)) is None:
            raise CheckpointError(
                f"{self.path_of(step)}: the disk gives back another content than was written",
                fix="check that disk: the checkpoints before are kept",
            )
        for path, saved in zip(paths, steps, strict=True):
            if saved in older or (saved > step and verify_checkpoint(path) is None):
                self._remove(path)
        for path in self.path.glob(".partial-*"):
            self._remove(path)

    def _newest_first(self) -> list[Path]:
        found = [path for path in self.path.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
        return sorted(found, reverse=True)

    @staticmethod
    def _remove(path: Path) -> None:
        shutil.rmtree(path, ignore_errors=True)


def verify_checkpoint(
    path: Path, names: Iterable[str] = (MODEL, OPTIMIZER, STATE)
) -> Checkpoint | None:
    """The checkpoint in a folder if every byte of these is as its manifest says, else None."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            return None
        for name in names:
            if _file_record(path / name) != manifest["files"][name]:
                return None
        return Checkpoint(path, json.loads((path / STATE).read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def identity_difference(saved: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """Lines `key: saved -> current` for all that differs; empty where nothing does."""
    keys = sorted(saved.keys() | current.keys())
    return "\n".join(
        f"  {key}: {saved.get(key)} -> {current.get(key)}"
        for key in keys
        if saved.get(key) != current.get(key)
    )


def _json_parts(content: dict[str, Any]) -> list[memoryview]:
    return [memoryview(json.dumps(content, indent=1).encode())]


def _file_record(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
