"""launch cluster up: hosts made ready and joined by Ray, for runs to come."""

from __future__ import annotations

import click

from launcher.cli.bring_up_view import BringUpView
from launcher.cli.cluster_run import open_up
from launcher.cli.output import json_option, print_json
from launcher.config.cluster import (
    LoadedCluster,
    load_cluster,
    require_addresses,
    require_trainable,
)
from launcher.config.pools import in_pool
from launcher.raycluster.bring_up import Stages, prepare, start_commands
from launcher.transport.together import close_all, connect_all


@click.command()
@click.argument("cluster")
@click.option("--pool", metavar="P", help="The hosts of one pool only.")
@click.option("--dry-run", is_flag=True, help="Print every command, and run none.")
@json_option
def command(cluster: str, pool: str | None, dry_run: bool, as_json: bool) -> None:
    """Install what hosts lack, start Ray where it is not up. Again: nothing is done twice."""
    loaded, pool = in_pool(load_cluster(cluster), pool)
    if dry_run:
        _dry_run(loaded, pool, as_json=as_json)
        return
    with open_up(loaded, pool) as up:
        document = {
            "cluster": up.spec.cluster,
            "nodes": [node.name for node in up.spec.nodes],
            "seconds": up.stages.seconds,
        }
        if as_json:
            print_json(document)
        else:
            click.echo(up.view.table(up.stages), err=True)
            names = ", ".join(node.name for node in up.spec.nodes)
            click.echo(f"cluster {up.spec.cluster} is up: {names}")


def _dry_run(loaded: LoadedCluster, pool: str | None, *, as_json: bool) -> None:
    nodes = require_trainable(loaded, pool)
    require_addresses(loaded, nodes)
    connections = connect_all(loaded, nodes)
    try:
        with BringUpView() as view:
            prepared = prepare(loaded, nodes, connections, Stages(), view)
    finally:
        close_all(connections)
    commands = {
        name: [str(operation) for operation in plan.operations] + start_commands(prepared, name)
        for name, plan in prepared.plans.items()
    }
    if as_json:
        print_json(commands)
        return
    for name, lines in commands.items():
        click.secho(name, bold=True)
        for line in lines or ["nothing: it is ready and up"]:
            click.echo("  " + line.replace("\n", "\n  "))
