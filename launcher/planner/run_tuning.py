"""Where a run is, as what was measured there decides for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from launcher.config.cluster import LOCAL
from launcher.config.recipe import Recipe
from launcher.planner.hardware import local_hardware
from launcher.planner.measurement import load_measurement
from launcher.planner.tuning import TUNING_KEY, Place, Tuning, tune
from launcher.provision.requirements import pinned_version

if TYPE_CHECKING:
    from launcher.config.loaded_cluster import LoadedCluster
    from launcher.config.node import Node


def tune_local_run(recipe: Recipe) -> Tuning:
    """On this machine."""
    device = local_hardware(load_measurement(LOCAL), recipe.workers).machines[0].device
    return _choices(recipe, LOCAL, [Place("", slots=recipe.workers)], device=device)


def tune_cluster_run(
    recipe: Recipe, loaded: LoadedCluster, nodes: Iterable[tuple[Node, int, int | None]]
) -> Tuning:
    """On a cluster. `nodes`: each with its ranks and the CPUs that one may use, None: all."""
    places, accelerators = [], set()
    for node, slots, cpus in nodes:
        places.append(Place(node.name, slots, cpus, node.explicit_share))
        accelerators.add(node.accelerator)
    device = "cpu" if accelerators == {"cpu"} else "cuda"
    return _choices(recipe, loaded.cluster.name, places, device=device)


def _choices(recipe: Recipe, cluster: str, places: Sequence[Place], *, device: str) -> Tuning:
    measured, version = load_measurement(cluster), pinned_version("torch")
    return tune(recipe, measured, places, device=device, torch_version=version)


def apply_tuning(spec: dict[str, Any], chosen: Tuning) -> dict[str, Any]:
    """The content of a new run's run.json, with what was chosen for it."""
    if not chosen.reasons:
        return spec
    settings = dict(spec["settings"])
    if chosen.micro_batch is not None:
        settings["micro_batch"] = chosen.micro_batch
    return spec | {"settings": settings, TUNING_KEY: chosen.as_json()}
