"""Recipes: the size of a model and the training it gets. Pure data, checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from launcher.config.paths import find_config_file, format_path
from launcher.config.strict_model import AS_WHOLE_NUMBER, Positive, StrictModel, Text, WholeNumber
from launcher.config.validation import BrokenRule, raise_broken_rules, validate
from launcher.config.yaml_source import YamlSource, read_yaml
from launcher.errors import ConfigError
from nanochat.dataset.climbmix import CLIMBMIX, shard_count, shards_for
from nanochat.errors import DataError
from nanochat.scaling import (
    TOKENS_PER_SCALING_PARAMETER,
    optimal_tokens_per_step,
    steps_for_flops,
    steps_for_tokens,
)
from nanochat.sizes import VOCAB_SIZE, ModelConfig, parameter_counts

SPECIAL_TOKEN_COUNT = 9  # upstream's: <|bos|> and eight that mark a conversation's turns
SMALLEST_VOCABULARY = 256 + SPECIAL_TOKEN_COUNT  # one token per byte value
WARMUP_STEPS = 40  # upstream's; a tenth of the run where that is shorter
HORIZON_KEYS = ("steps", "tokens", "flops", "tokens_per_scaling_parameter")  # one of them at most


def _valid_window_pattern(value: str) -> str:
    if not value or set(value.upper()) - set("SL"):
        message = "expected S (a quarter of the sequence) and L (all of it) as in SSSL, got {got}"
        raise PydanticCustomError("windows", message, {"got": repr(value)})
    return value.upper()


Count = Annotated[int, Field(ge=1, le=1_000_000_000), AS_WHOLE_NUMBER]


def _default_tokens_per_step(known: dict[str, Any]) -> int:
    """known: the keys before it, checked."""
    return optimal_tokens_per_step(_model(known))


def _model(keys: Mapping[str, Any]) -> ModelConfig:
    names = ("depth", "head_dim", "sequence_length", "window_pattern", "vocab_size")
    return ModelConfig(**{name: keys[name] for name in names})


class DataSettings(StrictModel):
    """Where the text comes from."""

    source: Text = "embedded"
    """embedded (the source of Python's standard library), climbmix (nanochat's own; climbmix:8 its
    first 8 shards, by itself as many as the horizon needs), files:PATTERN (of your own, sent to a
    cluster's head), or host:PATTERN (files that the head has)."""
    validation: Text | None = None
    """Files held out for validation; null: chosen from the source."""
    mirror: Text | None = None
    """Where climbmix is fetched from: an HTTP address, or a folder of this machine; null: the
    Hugging Face hub."""


class EvaluationSettings(StrictModel):
    """Bits per byte on the validation text, before the first step, on the way and at the end."""

    every_steps: Count = 250
    """Steps between evaluations."""
    tokens: Count = 65_536
    """Tokens per evaluation; the validation text may have fewer."""


class CheckpointSettings(StrictModel):
    """What a crash or a reboot can cost. One is always written at the end."""

    every_steps: Count | None = None
    """Steps between checkpoints; null: only every_minutes counts."""
    every_minutes: Positive | None = 10.0
    """Minutes between checkpoints; null: only every_steps counts."""
    keep: Annotated[int, Field(ge=1, le=1_000_000), AS_WHOLE_NUMBER] = 2
    """Newest checkpoints that stay on the disk."""


class GuideFigures(StrictModel):
    """What the published sizing guide says of this size: quoted, right or wrong."""

    reference: str | None = None
    """The guide's word for what the size is for."""
    dim: WholeNumber | None = None
    """Width of the model."""
    heads: WholeNumber | None = None
    """Attention heads per layer."""
    parameters: WholeNumber | None = None
    """All parameters."""
    flops_per_token: WholeNumber | None = None
    """Training FLOPs per token, forward and backward."""
    cpu_tokens_per_second: float | None = None
    """Tokens per second of two CPU machines."""
    seconds_per_step: float | None = None
    """Seconds per step of two CPU machines."""
    hours_per_1000_steps: float | None = None
    """Hours per 1,000 steps of two CPU machines."""
    steps: WholeNumber | None = None
    """Optimizer steps of the training horizon."""
    tokens_per_step: WholeNumber | None = None
    """Tokens per step of the training horizon."""
    tokens: WholeNumber | None = None
    """Tokens of the training horizon."""
    tokens_per_parameter: float | None = None
    """Tokens of the horizon per parameter, all of them counted."""
    val_bpb: float | None = None
    """Validation bits per byte at the end."""

    def figures(self) -> dict[str, Any]:
        """The figures that the guide has."""
        return self.model_dump(exclude_none=True)


class Recipe(StrictModel):
    """The size of a model and the training it gets."""

    depth: Annotated[int, Field(ge=1, le=100), AS_WHOLE_NUMBER]
    """Layers. The width follows: 64 x depth, rounded up to whole heads."""
    head_dim: Annotated[int, Field(ge=8, le=256, multiple_of=2), AS_WHOLE_NUMBER] = 128
    """Channels per attention head; rotary embedding turns them in pairs."""
    sequence_length: Annotated[int, Field(ge=2, le=1_048_576), AS_WHOLE_NUMBER] = 2048
    """Tokens that the model sees at once: the length of a row."""
    window_pattern: Annotated[str, AfterValidator(_valid_window_pattern)] = "L"
    """How far layers look back, tiled over them: S a quarter of the sequence, L all of it."""
    vocab_size: Annotated[int, Field(ge=SMALLEST_VOCABULARY, le=1_048_576), AS_WHOLE_NUMBER] = (
        VOCAB_SIZE
    )
    """Tokens of the vocabulary, the 9 special ones included."""
    tokens_per_step: Annotated[int, Field(ge=2, le=2**30), AS_WHOLE_NUMBER] = Field(
        default_factory=_default_tokens_per_step
    )
    """Tokens per optimizer step, all workers together; a multiple of sequence_length. Default:
    upstream's rule for the size, 2^18 for d4 and d8, 2^19 for d12, 2^20 for d20 and d24."""
    steps: Count | None = None
    """The training horizon in optimizer steps; or one of the next three."""
    tokens: Annotated[float, Field(ge=1, le=1e18)] | None = None
    """The horizon in tokens."""
    flops: Annotated[float, Field(ge=1, le=1e30)] | None = None
    """The horizon as a budget of training FLOPs."""
    tokens_per_scaling_parameter: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """The horizon in tokens per parameter of matrices and head; without any horizon: 12, which is
    about the compute optimum."""
    micro_batch: Count | None = None
    """Rows per forward pass and worker; null: as many as fit 4,096 tokens (GPU: 16,384)."""
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000_000), AS_WHOLE_NUMBER] | None = None
    """Steps of rising learning rate; null: min(40, steps // 10)."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1), AS_WHOLE_NUMBER] = 42
    """Of the initial weights and the order of the rows."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products; auto: bfloat16 on GPUs that have it, else float32."""
    workers: Annotated[int, Field(ge=1, le=1024), AS_WHOLE_NUMBER] = 1
    """Worker processes on this machine."""
    elastic: bool = False
    """On a cluster: start with the nodes that are there, go on without one that is lost, take it
    back when it returns. The rows of a step are dealt anew each time; losses stay equal within
    rounding."""
    data: DataSettings = DataSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    guide: GuideFigures = GuideFigures()

    @model_validator(mode="after")
    def _check_rules(self) -> Recipe:
        raise_broken_rules(list(_broken_rules(self)))
        return self

    @property
    def model(self) -> ModelConfig:
        return _model(dict(self))

    @property
    def steps_total(self) -> int:
        """Steps, given or worked out from another horizon."""
        if self.steps is not None:
            return self.steps
        if self.flops is not None:
            return steps_for_flops(self.flops, self.model, self.tokens_per_step)
        tokens = self.tokens
        if tokens is None:
            ratio = self.tokens_per_scaling_parameter or TOKENS_PER_SCALING_PARAMETER
            tokens = ratio * parameter_counts(self.model).scaling
        return steps_for_tokens(tokens, self.tokens_per_step)

    @property
    def warmup(self) -> int:
        """Steps of rising learning rate, given or by rule."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return min(WARMUP_STEPS, self.steps_total // 10)

    @property
    def text_source(self) -> str:
        """The data's source, with as many shards of climbmix as the horizon needs."""
        if self.data.source != CLIMBMIX:
            return self.data.source
        tokens = self.steps_total * self.tokens_per_step
        return f"{CLIMBMIX}:{shards_for(tokens, self.sequence_length)}"

    @property
    def rows_per_step(self) -> int:
        """Sequences per step, all workers together."""
        return self.tokens_per_step // self.sequence_length


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe with its origin. `name` is the file's, without its ending."""

    name: str
    path: Path
    recipe: Recipe
    source: YamlSource

    def error(self, key: str, message: str, *, fix: str | None = None) -> ConfigError:
        """For what turns out wrong later (a file is not there): points at the dotted key."""
        return self.source.error_at(key, message, fix=fix)


def load_recipe(name_or_path: str, overrides: Iterable[tuple[str, str]] = ()) -> LoadedRecipe:
    """Reads and checks a recipe.

    overrides: (option, its argument) as typed: ("--set", "seed=7"), ("--steps", "100"),
    ("--data", "climbmix"). Raises NotFound, or ConfigError with all problems.
    """
    path = find_config_file("recipe", name_or_path)
    source = read_yaml(path, fix=f"launch edit recipe {format_path(path)}")
    for option, argument in overrides:
        if option == "--set":
            source.override_pair(option, argument)
        elif option == "--data":
            source.override_text(option, "data.source", argument)
        else:
            source.override(option, option.removeprefix("--"), argument)
    _drop_overridden_keys(source)
    recipe = validate(Recipe, source)
    return LoadedRecipe(path.stem, path, recipe, source)


def _drop_overridden_keys(source: YamlSource) -> None:
    """An option that sets a horizon takes the file's other one out, and the file's warm-up where
    the steps have become fewer."""
    given = [
        key for key in HORIZON_KEYS if (key,) in source.overridden and source.data[key] is not None
    ]
    if len(given) == 1:
        for other in set(HORIZON_KEYS) - set(given):
            source.remove(other)
    steps, warmup = source.data.get("steps"), source.data.get("warmup_steps")
    numbers = isinstance(steps, int | float) and isinstance(warmup, int | float)
    own = ("warmup_steps",) in source.overridden
    if given == ["steps"] and numbers and not own and warmup > steps:
        source.remove("warmup_steps")


def _broken_rules(recipe: Recipe) -> Iterator[BrokenRule]:
    """What single values cannot show: keys that do not go together."""
    if recipe.data.validation == recipe.data.source:
        yield "data.validation is what is trained on: name other text", ("data.validation",)
    if recipe.data.validation and recipe.data.validation.partition(":")[0] == CLIMBMIX:
        yield "data.validation: climbmix validates itself: name other text", ("data.validation",)
    is_climbmix = recipe.data.source.partition(":")[0] == CLIMBMIX
    if is_climbmix and recipe.data.source != CLIMBMIX:
        try:
            shard_count(recipe.data.source)
        except DataError as error:
            yield f"data.source: {error.message}: {error.fix}", ("data.source",)
    if recipe.data.mirror and not is_climbmix:
        yield "data.mirror: only climbmix has one: leave it out", ("data.mirror",)
    yield from _broken_batch_rules(recipe)
    given = [key for key in HORIZON_KEYS if getattr(recipe, key) is not None]
    if len(given) > 1:
        yield f"write one horizon: {' and '.join(given)} are given", tuple(given[::-1])
        return
    if recipe.steps_total < 1:
        [key] = given
        message = (
            f"{key}: {getattr(recipe, key):g} is less than one step of "
            f"{recipe.tokens_per_step:,} tokens"
        )
        yield message, (key, "tokens_per_step")
    elif recipe.warmup > recipe.steps_total:
        message = f"{recipe.warmup:,} warm-up steps are more than all {recipe.steps_total:,} steps"
        yield message, ("warmup_steps", *HORIZON_KEYS)


def _broken_batch_rules(recipe: Recipe) -> Iterator[BrokenRule]:
    tokens, length = recipe.tokens_per_step, recipe.sequence_length
    if tokens % length:
        below = tokens // length * length
        nearest = " or ".join(f"{n:,}" for n in (below, below + length) if n)
        message = f"{tokens:,} tokens per step are not whole rows of {length:,}: use {nearest}"
        yield message, ("tokens_per_step", "sequence_length")
        return
    if recipe.rows_per_step < recipe.workers:
        rows = recipe.rows_per_step
        message = (
            f"{format_rows(rows)} per step ({tokens:,} tokens) cannot be dealt out to "
            f"{recipe.workers} workers: use {rows} or fewer"
        )
        yield message, ("workers", "tokens_per_step", "sequence_length")


def format_rows(count: int) -> str:
    """For people."""
    return "1 row" if count == 1 else f"{count:,} rows"
