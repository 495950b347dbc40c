"""The measurement of a cluster's machines: the file that `launch measure` writes.

LAUNCH_HOME/measured/CLUSTER.json on the client. Rates are of training: forward and backward, FLOPs
by the formula of nanochat.sizes, so that FLOPs / rate is what a part of the model takes on that
machine, all that goes with it (norms, activations, softcap) included.
"""

from __future__ import annotations

import statistics
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from launcher.config.paths import launch_home
from launcher.errors import RunFailed
from launcher.runs.folder import RunFolder
from launcher.runs.metric import latest_attempts, read_metrics
from launcher.runs.record import read_json, write_json

SETTLING_STEPS = 2  # the first steps touch their memory

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(ge=1)]


class _FrozenModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WidthRates(_FrozenModel):
    """FLOP/s of the parts of a model of one width. `products`: of a block, all but what grows with
    the square of the sequence; `attention`: that; `head`: head, softcap and loss; `muon`: the
    update of a block's matrices, in FLOPs of its products (nanochat.optimizer.muon)."""

    products: Rate
    attention: Rate
    head: Rate
    muon: Rate


class HostSpeed(_FrozenModel):
    """One host, or this machine, as one rank uses it.

    `threads`: the best number of those tried, `thread_rates`: FLOP/s of the products of d4's width
    by the number of threads; `cpus`: what they are pinned to, None where they are not (a hybrid CPU
    has cores of two kinds). `widths`: by the model's width in channels. Bytes per second:
    `memory` is read and written by adding one large array to another (three transfers an
    element), `adamw` of the seven transfers per parameter of its update, `disk` of a checkpoint
    that is written and flushed. `resident_bytes`: of a rank before it has a model. `memory_bytes`:
    of the machine, or of one GPU; `disk_free_bytes`: where checkpoints go. `pass_tokens`: the
    fewest tokens of one forward and backward pass that are within 3% of the fastest; `pass_rates`:
    tokens per second of a whole model of the first width, by the tokens of a pass.
    `pass_correction`: what such a pass takes / what its parts take by themselves.
    `launch_seconds`: what a CPU needs to start a GPU's kernels, per layer of an update and per
    layer of a pass, where rates do not have it in them. `busy_cores`: that something else kept busy
    meanwhile.
    """

    processor: str
    threads: PositiveInt
    thread_rates: dict[int, Rate]
    cpus: tuple[int, ...] | None = None
    why_threads: str
    busy_cores: float = 0.0
    widths: Annotated[dict[int, WidthRates], Field(min_length=1)]
    memory_bytes_per_second: Rate
    adamw_bytes_per_second: Rate
    disk_bytes_per_second: Rate
    resident_bytes: int | None = None
    memory_bytes: int | None = None
    disk_free_bytes: int | None = None
    pass_tokens: int | None = None
    pass_rates: dict[int, Rate] = {}
    pass_correction: Rate = 1.0
    launch_seconds: tuple[float, float] = (0.0, 0.0)

    @model_validator(mode="after")
    def _threads_were_tried(self) -> HostSpeed:
        if self.thread_rates and self.threads not in self.thread_rates:
            raise ValueError("threads: not one of thread_rates")
        return self


class LinkSpeed(_FrozenModel):
    """Between two hosts, by sums of both (gloo's all-reduce) as in training.

    `cpu_seconds_per_byte`: of computing that a rank of either end loses to a byte that it sends."""

    bytes_per_second: Rate
    latency_seconds: float
    cpu_seconds_per_byte: float


class Probe(_FrozenModel):
    """Steps of a real training on all hosts at once: the median of them."""

    recipe: str
    depth: int
    head_dim: int
    sequence_length: PositiveInt
    tokens_per_step: PositiveInt
    shares: Annotated[dict[str, Rate], Field(min_length=1)]
    step_seconds: Rate
    steps: int


class Measurement(_FrozenModel):
    """`hosts`: by node, "" is this machine; `links`: by both nodes' names in the file's order,
    joined by a space. `measured_at`: seconds since 1970. `device`: cpu or cuda; `dtype` of the
    products. `versions`: torch and launch."""

    format: Literal[1] = 1
    cluster: str
    measured_at: Annotated[float, Field(ge=0, le=1e11)]
    device: Annotated[str, Field(pattern="^(cpu|cuda)$")]
    dtype: str
    versions: dict[str, str]
    hosts: dict[str, HostSpeed]
    links: dict[str, LinkSpeed]
    probe: Probe | None = None

    @property
    def day(self) -> str:
        return f"{datetime.fromtimestamp(self.measured_at):%Y-%m-%d}"

    def link(self, one: str, other: str) -> LinkSpeed | None:
        return self.links.get(f"{one} {other}") or self.links.get(f"{other} {one}")


def measurement_file(cluster: str) -> Path:
    return launch_home() / "measured" / f"{cluster}.json"


def load_measurement(cluster: str) -> Measurement | None:
    """Load the measurement; None if there is none, if its format is of another version, or if it
    has figures that no machine has."""
    try:
        return Measurement.model_validate_json(measurement_file(cluster).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def save_measurement(measurement: Measurement) -> None:
    """Save it, and keep what is known of other hosts of the cluster: it may be of one pool only."""
    before = load_measurement(measurement.cluster)
    if before is not None and (before.device, before.dtype) == (
        measurement.device,
        measurement.dtype,
    ):
        merged = {
            "hosts": {**before.hosts, **measurement.hosts},
            "links": {**before.links, **measurement.links},
        }
        measurement = measurement.model_copy(update=merged)
    file = measurement_file(measurement.cluster)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, measurement.model_dump(mode="json"))


def finished_measurement(folder: RunFolder) -> Measurement:
    """Return the measurement of a finished run. Raises RunFailed if the run measured nothing."""
    content = read_json(folder.measurement_file)
    if content is None:
        raise RunFailed(f"run '{folder.name}' has measured nothing", fix=f"see {folder.log}")
    spec = folder.spec()
    recipe = spec.recipe
    metrics = latest_attempts(read_metrics(folder.metrics))[SETTLING_STEPS:]
    probe = Probe(
        recipe=spec.recipe_name,
        depth=recipe.depth,
        head_dim=recipe.head_dim,
        sequence_length=recipe.sequence_length,
        tokens_per_step=recipe.tokens_per_step,
        shares=spec.shares,
        step_seconds=statistics.median(metric.step_seconds for metric in metrics),
        steps=len(metrics),
    )
    # By this machine's clock: a host's may be wrong.
    update = {"probe": probe, "measured_at": round(time.time(), 3)}
    return Measurement.model_validate(content).model_copy(update=update)
