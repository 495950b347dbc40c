"""Trainings of nanochat that others, and we, have logged: speed, memory, bits per byte, source.

The figures stand in `public_runs.yaml`, parsed once when the first of them is asked for. Each run
has an id:

    rtx4070-d8:
      model: {depth: 8, sequence_length: 1_024, window_pattern: SSSL}
      hardware: "RTX 4070, 12 GB"
      gpu_model: NVIDIA GeForce RTX 4070
      precision: bfloat16
      tokens_per_second: 103_600
      source: "lzwjava/nanochat run_rtx4070.log, 2026-06-04"

`model` has the keys of nanochat.sizes.ModelConfig, a run those of PublicRun.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from nanochat.sizes import ModelConfig

DATA_FILE = Path(__file__).with_name("public_runs.yaml")
CLIMBMIX_TEXT = "ClimbMix"  # a run's `text` if it trained on upstream's text since March 2026
SHAPE = ("depth", "head_dim", "sequence_length", "window_pattern", "vocab_size")

Basis = Literal["logged", "derived"]
Precision = Literal["float32", "bfloat16", "float8"]


@dataclass(frozen=True)
class BitsPerByte:
    """One validation of a run."""

    tokens: int | None
    """Tokens trained on before it; None if the source does not say."""
    val_bpb: float


@dataclass(frozen=True, kw_only=True)
class PublicRun:
    """One training run, as far as its source describes it."""

    model: ModelConfig
    hardware: str
    """The machines, for people."""
    gpu_model: str | None
    """The GPU as cluster files name it; None if the run was on CPUs."""
    precision: Precision
    source: str
    """Who published the run, where and when."""
    devices: int = 1
    tokens_per_second: float | None = None
    """Of all devices together."""
    basis: Basis = "logged"
    """logged: its log or author gives the speed; derived: we computed it from what they give."""
    slowest: float | None = None
    """Tokens per second of its slowest step, if its steps varied."""
    fastest: float | None = None
    """Tokens per second of its fastest step, if its steps varied."""
    tokens: int | None = None
    tokens_per_step: int | None = None
    peak_bytes: int | None = None
    """Per device."""
    text: str | None = None
    """Name of the text that it trained on."""
    bits_per_byte: tuple[BitsPerByte, ...] = ()
    note: str = ""

    @property
    def last(self) -> BitsPerByte:
        """The last validation. Raises IndexError if there was none."""
        return self.bits_per_byte[-1]

    @property
    def best(self) -> BitsPerByte:
        return min(self.bits_per_byte, key=lambda validation: validation.val_bpb)

    def bpb_at(self, tokens: int) -> float:
        """Raises KeyError if there was no validation after just so many tokens."""
        return {found.tokens: found.val_bpb for found in self.bits_per_byte}[tokens]

    def as_json(self) -> dict[str, Any]:
        """The run's object in `launch size --json`: its model's shape beside its own keys."""
        fields = asdict(self)
        model = {name: fields["model"][name] for name in SHAPE}
        return model | {name: value for name, value in fields.items() if name != "model"}


@dataclass(frozen=True)
class Optimum:
    """The best model for one budget of training FLOPs."""

    flops: float
    scaling_parameters: int
    tokens: int
    tokens_per_scaling_parameter: float
    val_bpb: float


@dataclass(frozen=True)
class Sweep:
    """Upstream's search for the best model size at several budgets."""

    source: str
    optima: tuple[Optimum, ...]
    """From the smallest budget to the largest."""


def public_runs() -> tuple[PublicRun, ...]:
    """All runs, in the order of the file."""
    return tuple(_data()[0].values())


def public_run(run_id: str) -> PublicRun:
    return _data()[0][run_id]


def runs_of_depth(depth: int) -> list[PublicRun]:
    return [run for run in public_runs() if run.model.depth == depth]


def upstream_sweep() -> Sweep:
    return _data()[1]


def optimum_range() -> tuple[float, float]:
    """The fewest and the most tokens per scaling parameter of the sweep's optima."""
    ratios = [optimum.tokens_per_scaling_parameter for optimum in upstream_sweep().optima]
    return min(ratios), max(ratios)


@cache
def _data() -> tuple[Mapping[str, PublicRun], Sweep]:
    """Parse the data file."""
    # Both loaders are safe ones, which build plain data only; the one in C takes 6 ms, not 40.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content = yaml.load(DATA_FILE.read_text(encoding="utf-8"), Loader=loader)
    runs = {run_id: _parse_run(**fields) for run_id, fields in content["runs"].items()}
    optima = tuple(Optimum(**fields) for fields in content["sweep"]["optima"])
    return runs, Sweep(content["sweep"]["source"], optima)


def _parse_run(
    *, model: dict[str, Any], bits_per_byte: list[dict[str, Any]] | None = None, **fields: Any
) -> PublicRun:
    validations = tuple(BitsPerByte(**validation) for validation in bits_per_byte or ())
    return PublicRun(model=ModelConfig(**model), bits_per_byte=validations, **fields)
