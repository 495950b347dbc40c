"""`launch recipe NAME`: train the model of a recipe."""

from __future__ import annotations

import click

from launcher.cli.attach import start_local_run, submit_cluster_run
from launcher.cli.main import ENTERED
from launcher.cli.options import json_option
from launcher.cli.render.bring_up import BringUpView
from launcher.cli.render.estimate import estimate_rows
from launcher.cli.render.run_summary import summary_lines
from launcher.cli.render.table import print_json
from launcher.config.loaded_cluster import LoadedCluster
from launcher.config.paths import format_path
from launcher.operations.new_run import NewRun, request_run
from launcher.operations.open_cluster import open_cluster
from launcher.operations.start_run import create_cluster_run, create_local_run
from launcher.planner.run_plan import prediction
from launcher.planner.summary import summarize_recipe


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
    new = request_run(
        name, cluster=cluster, pool=pool, data=data, steps=steps, settings=settings, name=run_name
    )
    location, sizes = new.location, summarize_recipe(new.recipe.recipe)
    summary = summary_lines(new.recipe.name, sizes, location, estimate_rows(new.plan))
    if dry_run:
        document = sizes.as_json(new.recipe.name) | {
            "cluster": location.cluster,
            "workers": location.workers,
        }
        document["reasons"] |= location.tuning.reasons
        document["predicted"] = prediction(new.plan).as_json()
        print_json(document) if as_json else click.echo(summary)
        return
    if location.loaded is not None:
        click.echo(summary, err=True)
        _train_on_cluster(new, location.loaded, waits=not no_wait, detach=detach, as_json=as_json)
        return
    folder = create_local_run(new, entered=ENTERED, command="launch recipe")
    click.echo(summary, err=True)
    click.echo(f"  {'folder':<10}{format_path(folder.path)}", err=True)
    start_local_run(folder, detach=detach, as_json=as_json)


def _train_on_cluster(
    new: NewRun, loaded: LoadedCluster, *, waits: bool, detach: bool, as_json: bool
) -> None:
    view = BringUpView()
    elastic = new.recipe.recipe.elastic
    with open_cluster(loaded, new.location.pool, elastic=elastic, observer=view) as cluster:
        run = create_cluster_run(cluster, new, entered=ENTERED, waits=waits)
        submit_cluster_run(run, cluster, view, detach=detach, as_json=as_json)
