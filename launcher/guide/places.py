"""Where a run is, as what was measured there decides for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from launcher.config.cluster import LoadedCluster, Node
from launcher.config.cluster_rules import LOCAL
from launcher.config.recipe import Recipe
from launcher.guide.choices import CHOSEN, Choices, Place, choose
from launcher.guide.measurement import load_measurement
from launcher.provision.requirements import pinned_version


def choices_here(recipe: Recipe) -> Choices:
    """On this machine."""
    return choose(
        recipe,
        load_measurement(LOCAL),
        [Place("", slots=recipe.workers)],
        device=None,
        torch_version=pinned_version("torch"),
    )


def choices_there(
    recipe: Recipe, loaded: LoadedCluster, nodes: Iterable[tuple[Node, int, int | None]]
) -> Choices:
    """On a cluster. `nodes`: each with its ranks and the CPUs that one may use, None: all."""
    places, accelerators = [], set()
    for node, slots, cpus in nodes:
        places.append(Place(node.name, slots, cpus, node.written_share))
        accelerators.add(node.accelerator)
    return choose(
        recipe,
        load_measurement(loaded.cluster.name),
        places,
        device="cpu" if accelerators == {"cpu"} else "cuda",
        torch_version=pinned_version("torch"),
    )


def with_choices(spec: dict[str, Any], chosen: Choices) -> dict[str, Any]:
    """The content of a new run's run.json, with what was chosen for it."""
    if not chosen.reasons:
        return spec
    settings = dict(spec["settings"])
    if chosen.micro_batch is not None:
        settings["micro_batch"] = chosen.micro_batch
    return spec | {"settings": settings, CHOSEN: chosen.as_json()}
