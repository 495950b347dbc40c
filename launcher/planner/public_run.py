"""What is known of a training run that somebody logged."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from nanochat.sizes import ModelConfig

Basis = Literal["logged", "derived"]  # by the run's log or author; worked out from what they say
Precision = Literal["float32", "bfloat16", "float8"]
SHAPE = ("depth", "head_dim", "sequence_length", "window_pattern", "vocab_size")


@dataclass(frozen=True)
class BitsPerByte:
    """A validation. `tokens`: trained on by then; None: its source does not say."""

    tokens: int | None
    val_bpb: float


@dataclass(frozen=True, kw_only=True)
class PublicRun:
    """One training run. `gpu_model` as cluster files name it, None: on CPUs; `tokens_per_second` of
    all `devices` together, `slowest` and `fastest` of its steps where it varied; `tokens` and
    `tokens_per_step` as far as the source says; `peak_bytes` per device; `source`: who, where,
    when."""

    model: ModelConfig
    hardware: str
    gpu_model: str | None
    precision: Precision
    source: str
    devices: int = 1
    tokens_per_second: float | None = None
    basis: Basis = "logged"
    slowest: float | None = None
    fastest: float | None = None
    tokens: int | None = None
    tokens_per_step: int | None = None
    peak_bytes: int | None = None
    text: str | None = None
    bits_per_byte: tuple[BitsPerByte, ...] = ()
    note: str = ""

    @property
    def last(self) -> BitsPerByte:
        """The validation at its end. Raises IndexError where it had none."""
        return self.bits_per_byte[-1]

    @property
    def best(self) -> BitsPerByte:
        return min(self.bits_per_byte, key=lambda found: found.val_bpb)

    def bpb_at(self, tokens: int) -> float:
        """Raises KeyError where it was not validated just then."""
        return {found.tokens: found.val_bpb for found in self.bits_per_byte}[tokens]

    def as_json(self) -> dict[str, Any]:
        """As `launch size --json` has it: the model's shape without what all share."""
        fields = asdict(self)
        model = {name: fields["model"][name] for name in SHAPE}
        return model | {name: value for name, value in fields.items() if name != "model"}
