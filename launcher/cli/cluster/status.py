"""launch cluster status: what runs on each host."""

from __future__ import annotations

from dataclasses import asdict

import click

from launcher.cli.options import json_option
from launcher.cli.render.hosts import STATUS_COLUMNS
from launcher.cli.render.table import print_table
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import require_addresses
from launcher.operations.cluster_status import cluster_status
from launcher.ssh.parallel import combine_errors


@click.command()
@click.argument("cluster")
@json_option
def command(cluster: str, as_json: bool) -> None:
    """Show, for each node, whether Ray is up there; and the runs at work, at the head."""
    loaded = load_cluster(cluster)
    require_addresses(loaded, tuple(loaded.cluster.nodes))
    statuses, errors = cluster_status(loaded)
    print_table(STATUS_COLUMNS, [asdict(status) for status in statuses], as_json=as_json)
    if errors:
        raise combine_errors(errors)
