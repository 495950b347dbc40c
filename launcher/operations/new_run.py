"""A run that was asked for: checked and planned, and nothing created yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.config.cluster import LOCAL
from launcher.config.cluster_hosts import find_hosts
from launcher.config.recipe import LoadedRecipe, load_recipe
from launcher.operations.run_location import RunLocation, resolve_run_location
from launcher.planner.run_plan import RunPlan, plan_run, prediction
from launcher.runs.folder import require_run_name
from launcher.runs.overrides import require_settings
from launcher.runs.spec import RunSpec, new_run_spec
from launcher.runs.training_requirements import require_text


@dataclass(frozen=True)
class NewRun:
    """What will be trained, and where."""

    recipe: LoadedRecipe
    location: RunLocation
    plan: RunPlan
    name: str | None
    """None: RECIPE-1, RECIPE-2, ..."""

    def spec(self, *, entered: float, waits: bool = True) -> RunSpec:
        """Return the content of its run.json.

        `entered`: when the user asked for it, in seconds since 1970. `waits`: it may queue while
        another run has its hosts.
        """
        spec = new_run_spec(self.recipe, cluster=self.location.cluster, entered=entered)
        spec = spec.with_changes(predicted=prediction(self.plan))
        return spec if self.location.loaded is None else spec.with_changes(waits=waits)


def request_run(
    recipe: str,
    *,
    cluster: str = LOCAL,
    pool: str | None = None,
    data: str | None = None,
    steps: int | str | None = None,
    settings: Sequence[str] = (),
    name: str | None = None,
) -> NewRun:
    """Check what is asked for, and plan it.

    `recipe`, `cluster`: a name or a path; `settings`: KEY=VALUE. Raises NotFound, ConfigError or
    InputError for what cannot be.
    """
    require_settings(settings)
    overrides = [("--set", setting) for setting in settings]
    overrides += [] if data is None else [("--data", data)]
    overrides += [] if steps is None else [("--steps", str(steps))]
    loaded = load_recipe(recipe, overrides)
    if name is not None:
        require_run_name(name)
    hosts = find_hosts(cluster, pool)
    location = resolve_run_location(loaded, hosts)
    require_text(loaded, Path.cwd(), is_local=location.loaded is None)
    return NewRun(loaded, location, plan_run(loaded, hosts), name)
