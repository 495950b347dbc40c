"""`launch recipe NAME`: train the model of a recipe."""

from __future__ import annotations

import os

import click

from launcher.cli.attach import run_here
from launcher.cli.main import ENTERED
from launcher.cli.output import json_option, print_json
from launcher.cli.plan_text import outlook_lines
from launcher.config.recipe import load_recipe
from launcher.errors import InputError
from launcher.guide.outlook import outlook
from launcher.runs.folder import create_run
from launcher.runs.submit import check_here, require_training_packages, run_spec


@click.command()
@click.argument("name")
@click.option("--cluster", default="local", show_default=True, help="Where: this machine so far.")
@click.option("--data", help="embedded, or files:PATTERN (txt, md, jsonl, parquet).")
@click.option("--steps", help="Optimizer steps.")
@click.option("--name", "run_name", help="Of the run; else NAME-1, NAME-2, ...")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override any key.")
@click.option("--detach", is_flag=True, help="Leave it in the background.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@json_option
def command(
    name: str,
    cluster: str,
    data: str | None,
    steps: str | None,
    run_name: str | None,
    settings: tuple[str, ...],
    detach: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train the model of a recipe: d4, d8, d12, d20, d24, your own, or a file."""
    if cluster != "local":
        raise InputError(
            f"--cluster {cluster}: not supported yet", fix="leave it out: this machine trains"
        )
    overrides = [("--set", setting) for setting in settings]
    overrides += [("--data", data)] if data is not None else []
    overrides += [("--steps", steps)] if steps is not None else []
    loaded = load_recipe(name, overrides)
    check_here(loaded)
    plan = outlook(loaded.recipe)
    if dry_run:
        print_json(plan.as_json(loaded.name)) if as_json else click.echo(
            outlook_lines(loaded.name, plan)
        )
        return
    require_training_packages("launch recipe")
    folder = create_run(run_name, loaded.name, run_spec(loaded, cluster=cluster, entered=ENTERED))
    click.echo(outlook_lines(loaded.name, plan), err=True)
    click.echo(f"  {'folder':<10}{os.path.relpath(folder.path, os.getcwd())}", err=True)
    run_here(folder, detach=detach, as_json=as_json)
