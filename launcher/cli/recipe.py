"""`launch recipe NAME`: train the model of a recipe."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.cli.attach import run_local
from launcher.cli.main import ENTERED
from launcher.cli.render.estimate import estimate_rows
from launcher.cli.render.run_summary import RunLocation, summary_lines
from launcher.cli.render.table import json_option, print_json
from launcher.config.paths import format_path
from launcher.config.recipe import LoadedRecipe, load_recipe
from launcher.errors import InputError
from launcher.planner.find_hardware import PREDICTED, plan_run, prediction
from launcher.planner.run_tuning import apply_tuning, tune_cluster_run, tune_local_run
from launcher.planner.summary import summarize_recipe
from launcher.runs.folder import create_run, require_run_name
from launcher.runs.submit import (
    require_cores,
    require_rows_for_all,
    require_text,
    require_training_packages,
    run_spec,
)


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
    where = resolve_run_location(loaded, cluster, pool)
    require_text(loaded, Path.cwd(), here=where.hosts is None)
    sizes, plan = summarize_recipe(loaded.recipe), plan_run(loaded, cluster, pool)
    words = summary_lines(loaded.name, sizes, where, estimate_rows(plan))
    if dry_run:
        document = sizes.as_json(loaded.name) | {"cluster": where.cluster, "workers": where.workers}
        document["reasons"] |= where.chosen.reasons
        document[PREDICTED] = prediction(plan)
        print_json(document) if as_json else click.echo(words)
        return
    spec = run_spec(loaded, cluster=where.cluster, entered=ENTERED) | {PREDICTED: prediction(plan)}
    if where.hosts is not None:
        from launcher.cli.cluster_run import start_remote

        click.echo(words, err=True)
        spec["waits"] = not no_wait
        start_remote(
            loaded, where.hosts, where.pool, spec,
            run_name=run_name, detach=detach, as_json=as_json,
        )  # fmt: skip
        return
    require_training_packages("launch recipe")
    folder = create_run(run_name, loaded.name, apply_tuning(spec, where.chosen))
    click.echo(words, err=True)
    click.echo(f"  {'folder':<10}{format_path(folder.path)}", err=True)
    run_local(folder, detach=detach, as_json=as_json)


def resolve_run_location(loaded: LoadedRecipe, cluster: str, pool: str | None) -> RunLocation:
    """Raises NotFound or ConfigError for the cluster's file, ConfigError where the recipe does not
    fit its hosts."""
    if cluster == "local":
        if pool is not None:
            raise InputError("--pool: local is one machine", fix="leave --pool out")
        require_cores(loaded)
        chosen = tune_local_run(loaded.recipe)
        return RunLocation("local", loaded.recipe.workers, None, chosen=chosen)
    from launcher.config.cluster_file import load_cluster
    from launcher.config.loaded_cluster import require_trainable
    from launcher.config.subcluster import select_pool

    hosts, pool = select_pool(load_cluster(cluster), pool)
    nodes = require_trainable(hosts, pool)
    require_rows_for_all(loaded, hosts.cluster.name, {node.name: node.share for node in nodes})
    chosen = tune_cluster_run(
        loaded.recipe, hosts, [(node, node.gpus or 1, node.cpus) for node in nodes]
    )
    return RunLocation(hosts.cluster.name, len(nodes), hosts, pool, chosen)
