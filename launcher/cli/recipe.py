"""`launch recipe NAME`: train the model of a recipe."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.cli.attach import start_local_run, submit_cluster_run
from launcher.cli.main import ENTERED
from launcher.cli.options import json_option
from launcher.cli.render.bring_up import BringUpView
from launcher.cli.render.estimate import estimate_rows
from launcher.cli.render.run_summary import summary_lines
from launcher.cli.render.table import print_json
from launcher.config.cluster_hosts import find_hosts
from launcher.config.paths import format_path
from launcher.config.recipe import LoadedRecipe, load_recipe
from launcher.operations.open_cluster import open_cluster
from launcher.operations.run_location import RunLocation, resolve_run_location
from launcher.operations.start_run import create_cluster_run
from launcher.planner.run_plan import plan_run, prediction
from launcher.planner.summary import summarize_recipe
from launcher.planner.tuning import apply_tuning
from launcher.runs.folder import create_run, require_run_name
from launcher.runs.spec import RunSpec, new_run_spec
from launcher.runs.training_requirements import require_text, require_training_packages


@click.command()
@click.argument("name")
@click.option("--cluster", default="local", show_default=True, metavar="C", help="Where.")
@click.option("--pool", metavar="P", help="The hosts of one pool of the cluster only.")
@click.option(
    "--data",
    help="embedded, climbmix, files:PATTERN (txt, md, rst, py, jsonl, parquet), host:PATTERN.",
)
@click.option("--steps", help="Optimizer steps.")
@click.option("--name", "run_name", help="Of the run; else NAME-1, NAME-2, ...")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override any key.")
@click.option("--no-wait", is_flag=True, help="Not where another run has these hosts.")
@click.option("--detach", is_flag=True, help="Leave it in the background.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@json_option
def command(
    name: str,
    cluster: str,
    pool: str | None,
    data: str | None,
    steps: str | None,
    run_name: str | None,
    settings: tuple[str, ...],
    no_wait: bool,
    detach: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train the model of a recipe: d4, d8, d12, d20, d24, your own, or a file."""
    overrides = [("--set", setting) for setting in settings]
    overrides += [("--data", data)] if data is not None else []
    overrides += [("--steps", steps)] if steps is not None else []
    loaded = load_recipe(name, overrides)
    if run_name is not None:
        require_run_name(run_name)
    hosts = find_hosts(cluster, pool)
    location = resolve_run_location(loaded, hosts)
    require_text(loaded, Path.cwd(), is_local=location.loaded is None)
    sizes, plan = summarize_recipe(loaded.recipe), plan_run(loaded, hosts)
    summary = summary_lines(loaded.name, sizes, location, estimate_rows(plan))
    if dry_run:
        document = sizes.as_json(loaded.name) | {
            "cluster": location.cluster,
            "workers": location.workers,
        }
        document["reasons"] |= location.tuning.reasons
        document["predicted"] = prediction(plan).as_json()
        print_json(document) if as_json else click.echo(summary)
        return
    spec = new_run_spec(loaded, cluster=location.cluster, entered=ENTERED)
    spec = spec.with_changes(predicted=prediction(plan))
    if location.loaded is not None:
        click.echo(summary, err=True)
        spec = spec.with_changes(waits=not no_wait)
        _train_on_cluster(loaded, location, spec, run_name, detach=detach, as_json=as_json)
        return
    require_training_packages("launch recipe")
    folder = create_run(run_name, loaded.name, apply_tuning(spec, location.tuning))
    click.echo(summary, err=True)
    click.echo(f"  {'folder':<10}{format_path(folder.path)}", err=True)
    start_local_run(folder, detach=detach, as_json=as_json)


def _train_on_cluster(
    recipe: LoadedRecipe,
    location: RunLocation,
    spec: RunSpec,
    name: str | None,
    *,
    detach: bool,
    as_json: bool,
) -> None:
    assert location.loaded is not None
    view = BringUpView()
    elastic = recipe.recipe.elastic
    with open_cluster(location.loaded, location.pool, elastic=elastic, observer=view) as cluster:
        run = create_cluster_run(cluster, recipe, location.pool, spec, name)
        submit_cluster_run(run, cluster, view, detach=detach, as_json=as_json)
