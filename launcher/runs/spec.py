"""What a run was asked to do and what was settled for it: run.json.

    {"run": "d4-1", "recipe": "d4", "cluster": "home", "created": 1764434321.5, "steps": 1000,
     "folder": "/home/ada", "settings": {"depth": 4, ...}, "nodes": [{"name": "pc1", ...}, ...],
     "data": {"folder": ..., "identity": ...}, "versions": {"torch": "2.13.0", ...}, ...}

The client writes the first part when it creates the run, the driver the rest when training is
about to begin. `launch resume` changes some of it.
"""

from __future__ import annotations

import json
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError, field_validator

from launcher.errors import InputError
from launcher.runs.node import RunNode
from launcher.runs.record import Count, Record, Timestamp
from nanochat.sizes import ModelConfig

if TYPE_CHECKING:
    from launcher.config.recipe import LoadedRecipe, Recipe

OTHER_VERSION_FIX = "another version of launch has made it: go on with that one"


class Tuning(Record):
    """What a measurement decided for the run; empty if nothing was measured or the files said it.

    All by node: "" is this machine.
    """

    threads: dict[str, int] = Field(default_factory=dict)
    """Threads of a rank."""
    cpus: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    """Numbers of the CPUs that these are pinned to."""
    shares: dict[str, float] = Field(default_factory=dict)
    """Weights of the rows that nodes take; their mean is 1."""
    micro_batch: int | None = None
    """Rows of a forward and backward pass."""
    reasons: dict[str, str] = Field(default_factory=dict)
    """What was chosen -> why, for people."""


class SpeedRange(Record):
    """Tokens per second that a run was predicted to reach."""

    low: float
    expected: float
    high: float


class Prediction(Record):
    """What the plan said when the run was created."""

    tokens_per_second: SpeedRange
    step_seconds: float
    hours: float
    basis: str
    """measured or estimate."""


class BenchmarkRequest(Record):
    """What a run of `launch measure` times before it trains."""

    models: tuple[ModelConfig, ...] = ()
    """Sizes to time; empty: those that suit the device."""


class RunData(Record):
    """The prepared text of a run."""

    folder: str
    """Where it lies on the machine of the driver."""
    identity: dict[str, Any]
    """Hashes of all that it was made of."""


class Extension(Record):
    """A run that was made longer."""

    from_steps: int = Field(validation_alias="from", serialization_alias="from")
    to_steps: int = Field(validation_alias="to", serialization_alias="to")
    at_step: int
    """The last step that was saved then."""


class RunSpec(Record):
    """The content of run.json."""

    run: str = ""
    recipe_name: str = Field(validation_alias="recipe", serialization_alias="recipe")
    recipe_file: str = "run.json"
    cluster: str
    """`local`, or the cluster's name."""
    created: Timestamp
    """Seconds since 1970."""
    entered: Timestamp = 0.0
    """When the user pressed Enter for the present start, by the clock of the driver's machine."""
    steps: Count
    """Optimizer steps in all."""
    folder: str = ""
    """Where relative file patterns of the data begin."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The recipe's keys, as `recipe` reads them."""
    waits: bool = True
    """Whether it may queue while another run has its hosts."""
    pool: str | None = None
    nodes: tuple[RunNode, ...] = ()
    """Those of a cluster's run, in rank order: the head first."""
    text: dict[str, str] = Field(default_factory=dict)
    """`source` and `validation` -> the key of the text that the client has sent."""
    tuning: Tuning = Field(
        default=Tuning(), validation_alias="chosen", serialization_alias="chosen"
    )
    predicted: Prediction | None = None
    benchmark: BenchmarkRequest | None = Field(
        default=None, validation_alias="measures", serialization_alias="measures"
    )
    extended: tuple[Extension, ...] = ()
    imported_from: str | None = None
    data: RunData | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    """torch, ray, tiktoken, launch and python."""
    device: str | None = None
    """cpu or cuda."""
    dtype: str | None = None
    threads: dict[str, int] = Field(default_factory=dict)
    """Node -> threads of each of its ranks."""
    cpus: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    """Node -> numbers of the CPUs that these are pinned to."""
    reasons: dict[str, str] = Field(default_factory=dict)
    """What was chosen when training began -> why, for people."""

    @field_validator("threads", mode="before")
    @classmethod
    def _threads_by_node(cls, threads: Any) -> Any:
        """Runs older than 2026-11-23 wrote the number of one machine."""
        return {"": threads} if isinstance(threads, int) else threads

    @cached_property
    def recipe(self) -> Recipe:
        """The settings, checked. Raises InputError if this version does not know them."""
        from launcher.config.recipe import Recipe  # YAML: programs on hosts do without

        try:
            return Recipe.model_validate(self.settings)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            where = f"{key}: " if key else ""
            message = f"run.json of run '{self.run}': {where}{first['msg'].lower()}"
            raise InputError(message, fix=OTHER_VERSION_FIX) from None

    @property
    def shares(self) -> dict[str, float]:
        """Node -> weight of the rows that it takes. A run of this machine has one node, ""."""
        return {node.name: node.share for node in self.nodes} or {"": 1.0}

    def with_changes(self, **changes: Any) -> RunSpec:
        """Return a copy with other values; keyword arguments are names of fields."""
        spec = RunSpec(**(self._set_fields() | changes))
        # As arguments, unknown keys could be taken for fields.
        object.__setattr__(spec, "__pydantic_extra__", dict(self.model_extra or {}))
        return spec

    def _set_fields(self) -> dict[str, Any]:
        """Return the known fields that were ever set, by name."""
        names = self.model_fields_set & type(self).model_fields.keys()
        return {name: self.__dict__[name] for name in names}

    def changes_since(self, earlier: RunSpec) -> dict[str, Any]:
        """Return the fields, by name, that say something else than in an earlier copy."""
        before, missing = earlier._set_fields(), object()
        return {
            name: value
            for name, value in self._set_fields().items()
            if before.get(name, missing) != value
        }

    def missing_keys(self, *names: str) -> list[str]:
        """Return the keys of those of these fields that were never written."""
        fields = type(self).model_fields
        unset = [name for name in names if name not in self.model_fields_set]
        return [fields[name].serialization_alias or name for name in unset]


def parse_spec(
    content: dict[str, Any] | None, file: str, address: str, *, strict: bool = False
) -> RunSpec:
    """Return the run.json of the run that commands know by `address`.

    `content`: None if `file` is not a JSON object. `strict`: for what acts on every key. Raises
    InputError that says what is wrong.
    """
    if content is None:
        raise InputError(
            f"{file} is damaged: it is no JSON object",
            fix=f"bring the file back; or, to give the run up: launch runs remove {address}",
        )
    try:
        return RunSpec.require(content, strict=strict)
    except ValidationError as error:
        raise InputError(f"{file} {_describe_errors(error)}", fix=OTHER_VERSION_FIX) from None


def merge_changes(content: dict[str, Any], spec: RunSpec, changes: dict[str, Any]) -> bytes:
    """Return the content of a run.json with other values of some fields, the rest as it was: also
    what this version does not know or cannot read. `spec`: what it says."""
    changed = spec.with_changes(**changes)
    values = changed.model_dump(mode="json", by_alias=True, include=set(changes))
    return json.dumps(content | values, indent=1).encode() + b"\n"


def _describe_errors(error: ValidationError) -> str:
    """Say which keys are missing, else what is wrong with the first key."""
    errors = [(".".join(map(str, entry["loc"])), entry) for entry in error.errors()]
    if missing := [key for key, entry in errors if entry["type"] == "missing"]:
        return f"lacks {', '.join(missing)}"
    key, first = errors[0]
    return f"has a wrong {key}: {first['msg'].lower()}"


def new_run_spec(loaded: LoadedRecipe, *, cluster: str, entered: float) -> RunSpec:
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
