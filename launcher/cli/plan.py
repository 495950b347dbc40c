"""`launch plan NAME`: fit, time, energy and a verdict, before anything starts."""

from __future__ import annotations

from typing import Any

import click

from launcher.cli.options import json_option
from launcher.cli.render.estimate import ALTERNATIVE_COLUMNS, estimate_rows, explanation_lines
from launcher.cli.render.guide_tables import print_guide
from launcher.cli.render.run_summary import summary_lines
from launcher.cli.render.table import print_json, print_table
from launcher.config.cluster_hosts import find_hosts
from launcher.config.recipe import load_recipe
from launcher.operations.run_location import resolve_run_location
from launcher.planner.plan_json import plan_as_json
from launcher.planner.run_plan import plan_run
from launcher.planner.size_table import all_sizes
from launcher.planner.summary import summarize_recipe
from launcher.planner.tables import make_guide_page


@click.command()
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="The guide's tables for these machines.")
@click.option("--markdown", is_flag=True, help="With --all: as a page to keep.")
@click.option("--cluster", default="local", show_default=True, metavar="C", help="Where.")
@click.option("--pool", metavar="P", help="The hosts of one pool of the cluster only.")
@click.option("--steps", help="Optimizer steps.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override any key.")
@click.option("--explain", is_flag=True, help="Where the seconds of a step and the memory go.")
@json_option
def command(
    name: str | None,
    everything: bool,
    markdown: bool,
    cluster: str,
    pool: str | None,
    steps: str | None,
    settings: tuple[str, ...],
    explain: bool,
    as_json: bool,
) -> None:
    """Say whether a recipe fits, how long it takes and whether it is worth it. Nothing starts.

    Figures are measured (`launch measure`, and every run since) or estimated of what is written in
    the cluster file, and say which. Exit code 0 whatever the verdict.
    """
    if everything:
        _refuse_recipe_options(name, steps, settings, explain)
        print_guide(
            make_guide_page(all_sizes(), find_hosts(cluster, pool)),
            as_json=as_json,
            markdown=markdown,
        )
        return
    if name is None or markdown:
        raise click.UsageError(
            "name a recipe, or --all" if name is None else "--markdown is for --all"
        )
    overrides = [("--set", setting) for setting in settings]
    overrides += [("--steps", steps)] if steps is not None else []
    loaded = load_recipe(name, overrides)
    hosts = find_hosts(cluster, pool)
    location = resolve_run_location(loaded, hosts)
    plan = plan_run(loaded, hosts)
    if as_json:
        print_json(plan_as_json(plan))
        return
    click.echo(
        summary_lines(loaded.name, summarize_recipe(loaded.recipe), location, estimate_rows(plan))
    )
    if explain:
        click.echo()
        click.echo(explanation_lines(plan.estimate))
    if plan.alternatives:
        click.echo()
        print_table(
            ALTERNATIVE_COLUMNS, [each.as_json() for each in plan.alternatives], as_json=False
        )


def _refuse_recipe_options(
    name: str | None, steps: str | None, settings: Any, explain: bool
) -> None:
    given = {"NAME": name, "--steps": steps, "--set": settings, "--explain": explain}
    if others := [option for option, value in given.items() if value]:
        raise click.UsageError(f"--all is of all sizes as they are: leave {others[0]} out")
