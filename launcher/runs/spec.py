"""What a run was asked to do and what was settled for it: run.json.

    {"run": "d4-1", "recipe": "d4", "cluster": "home", "created": 1764434321.5, "steps": 1000,
     "folder": "/home/ada", "settings": {"depth": 4, ...}, "nodes": [{"name": "pc1", ...}, ...],
     "data": {"folder": ..., "identity": ...}, "versions": {"torch": "2.13.0", ...}, ...}

The client writes the first part when it creates the run, the driver the rest when training is
about to begin. `launch resume` changes some of it.
"""

from __future__ import annotations

import time
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from launcher.config.recipe import LoadedRecipe, Recipe
from launcher.errors import InputError
from launcher.runs.node import RunNode
from launcher.runs.record import Record
from nanochat.sizes import ModelConfig

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
    created: float
    """Seconds since 1970."""
    entered: float = 0.0
    """When the user pressed Enter for the present start, by the clock of the driver's machine."""
    steps: int
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

    @cached_property
    def recipe(self) -> Recipe:
        """The settings, checked. Raises InputError if this version does not know them."""
        try:
            return Recipe.model_validate(self.settings)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            message = f"run.json of run '{self.run}': {key}: {first['msg'].lower()}"
            raise InputError(message, fix=OTHER_VERSION_FIX) from None

    @property
    def shares(self) -> dict[str, float]:
        """Node -> weight of the rows that it takes. A run of this machine has one node, ""."""
        return {node.name: node.share for node in self.nodes} or {"": 1.0}

    def with_changes(self, **changes: Any) -> RunSpec:
        """Return a copy with other values; keyword arguments are names of fields."""
        named = {name: getattr(self, name) for name in self.model_fields_set} | changes
        return RunSpec(**named)

    def missing_keys(self, *names: str) -> list[str]:
        """Return the keys of those of these fields that were never written."""
        fields = type(self).model_fields
        unset = [name for name in names if name not in self.model_fields_set]
        return [fields[name].serialization_alias or name for name in unset]


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
