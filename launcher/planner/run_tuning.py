"""Where a run is, as what was measured there decides for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from launcher.config.cluster import LOCAL
from launcher.config.recipe import Recipe
from launcher.planner.hardware import this_machine
from launcher.planner.measurement import load_measurement
from launcher.planner.tuning import CHOSEN, Choices, Place, choose
from launcher.provision.requirements import pinned_version

if TYPE_CHECKING:
    from launcher.config.loaded_cluster import LoadedCluster
    from launcher.config.node import Node


def choices_here(recipe: Recipe) -> Choices:
    """On this machine."""
    device = this_machine(load_measurement(LOCAL), recipe.workers).machines[0].device
    return _choices(recipe, LOCAL, [Place("", slots=recipe.workers)], device=device)


def choices_there(
    recipe: Recipe, loaded: LoadedCluster, nodes: Iterable[tuple[Node, int, int | None]]
) -> Choices:
    """On a cluster. `nodes`: each with its ranks and the CPUs that one may use, None: all."""
    places, accelerators = [], set()
    for node, slots, cpus in nodes:
        places.append(Place(node.name, slots, cpus, node.written_share))
        accelerators.add(node.accelerator)
    device = "cpu" if accelerators == {"cpu"} else "cuda"
    return _choices(recipe, loaded.cluster.name, places, device=device)


def _choices(recipe: Recipe, cluster: str, places: Sequence[Place], *, device: str) -> Choices:
    measured, version = load_measurement(cluster), pinned_version("torch")
    return choose(recipe, measured, places, device=device, torch_version=version)


def with_choices(spec: dict[str, Any], chosen: Choices) -> dict[str, Any]:
    """The content of a new run's run.json, with what was chosen for it."""
    if not chosen.reasons:
        return spec
    settings = dict(spec["settings"])
    if chosen.micro_batch is not None:
        settings["micro_batch"] = chosen.micro_batch
    return spec | {"settings": settings, CHOSEN: chosen.as_json()}
