"""What a run that measures has left: its hosts and links, and its steps as the probe."""

from __future__ import annotations

import statistics
import time

from launcher.config.recipe import Recipe
from launcher.errors import RunFailed
from launcher.planner.measurement import (
    Measurement,
    Probe,
    load_measurement,
    measurement_file,
)
from launcher.runs.folder import RunFolder, read_json, write_json
from launcher.runs.records import latest_attempts, read_records

MEASURES = "measures"  # the key of run.json: {"models": [...]}, none: those of the device
SETTLING_STEPS = 2  # touch their memory first


def finished_measurement(folder: RunFolder) -> Measurement:
    """Of a run that has made its steps. Raises RunFailed where it has measured nothing."""
    content = read_json(folder.measured_file)
    if content is None:
        raise RunFailed(f"run '{folder.name}' has measured nothing", fix=f"see {folder.log}")
    spec = folder.spec()
    recipe = Recipe.model_validate(spec["settings"])
    records = latest_attempts(read_records(folder.metrics))[SETTLING_STEPS:]
    probe = Probe(
        recipe=spec["recipe"],
        depth=recipe.depth,
        head_dim=recipe.head_dim,
        sequence_length=recipe.sequence_length,
        tokens_per_step=recipe.tokens_per_step,
        shares={node["name"]: node["share"] for node in spec.get("nodes", ())} or {"": 1.0},
        step_seconds=statistics.median(record["step_seconds"] for record in records),
        steps=len(records),
    )
    # By this machine's clock: a host's may be wrong.
    update = {"probe": probe, "measured_at": round(time.time(), 3)}
    return Measurement.model_validate(content).model_copy(update=update)


def save_measurement(measurement: Measurement) -> None:
    """What is known of other hosts of the cluster stays: one of its pools was measured."""
    before = load_measurement(measurement.cluster)
    if before is not None and (before.device, before.dtype) == (
        measurement.device,
        measurement.dtype,
    ):
        both = {
            "hosts": {**before.hosts, **measurement.hosts},
            "links": {**before.links, **measurement.links},
        }
        measurement = measurement.model_copy(update=both)
    file = measurement_file(measurement.cluster)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, measurement.model_dump(mode="json"))
