"""launch cluster up: hosts made ready and joined by Ray, for runs to come."""

from __future__ import annotations

import click

from launcher.cli.options import json_option
from launcher.cli.render.bring_up import BringUpView
from launcher.cli.render.hosts import operation_lines
from launcher.cli.render.table import print_json
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import LoadedCluster, require_addresses, require_trainable
from launcher.config.subcluster import select_pool
from launcher.operations.open_cluster import open_cluster
from launcher.raycluster.bring_up import StageTimes, plan_bring_up, start_commands
from launcher.ssh.parallel import close_all, combine_errors, try_connect_all


@click.command()
@click.argument("cluster")
@click.option("--pool", metavar="P", help="The hosts of one pool only.")
@click.option("--dry-run", is_flag=True, help="Print every command, and run none.")
@json_option
def command(cluster: str, pool: str | None, dry_run: bool, as_json: bool) -> None:
    """Install what hosts lack, start Ray where it is not up. Again: nothing is done twice.

    Nodes that were drained are taken back.
    """
    loaded, pool = select_pool(load_cluster(cluster), pool)
    if dry_run:
        _dry_run(loaded, pool, as_json=as_json)
        return
    view = BringUpView()
    with open_cluster(loaded, pool, undrain_nodes=True, observer=view) as up:
        document = {
            "cluster": up.spec.cluster,
            "nodes": [node.name for node in up.spec.nodes],
            "seconds": up.stages.seconds,
        }
        if as_json:
            print_json(document)
        else:
            click.echo(view.table(up.stages), err=True)
            names = ", ".join(node.name for node in up.spec.nodes)
            click.echo(f"cluster {up.spec.cluster} is up: {names}")


def _dry_run(loaded: LoadedCluster, pool: str | None, *, as_json: bool) -> None:
    nodes = require_trainable(loaded, pool)
    require_addresses(loaded, nodes)
    connections, unreached = try_connect_all(loaded, nodes)
    try:
        if not connections:
            raise combine_errors(unreached)
        with BringUpView() as view:
            plan = plan_bring_up(loaded, nodes, connections, StageTimes(), view, unreached)
    finally:
        close_all(connections)
    error, host_plans = plan.error, plan.host_plans
    starts = {name: [] if error else start_commands(plan, name) for name in host_plans}
    if as_json:
        lists = {
            name: [*map(str, host_plans[name].operations), *starts[name]] for name in host_plans
        }
        print_json(lists)
    else:
        for name, host_plan in host_plans.items():
            click.secho(name, bold=True)
            lines = [*operation_lines(host_plan.operations), *starts[name]]
            for line in lines or ["nothing: it is ready and up"]:
                click.echo("  " + line.replace("\n", "\n  "))
    if error is not None:
        raise error
