"""launch cluster list: the cluster files that a name finds."""

from __future__ import annotations

import click

from launcher.cli.options import json_option
from launcher.cli.render.cluster_file import CLUSTER_COLUMNS
from launcher.cli.render.table import Row, print_table
from launcher.config.cluster import LOCAL
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import lacks_address
from launcher.config.paths import ConfigFile, format_path, list_config_files
from launcher.errors import InputError


@click.command()
@json_option
def command(as_json: bool) -> None:
    """List the clusters: ./clusters (here), LAUNCH_HOME (home), and those that came along."""
    rows = [_row(file) for file in list_config_files("cluster")]
    print_table(
        CLUSTER_COLUMNS, sorted(rows, key=lambda row: row["name"] != LOCAL), as_json=as_json
    )


def _row(file: ConfigFile) -> Row:
    row = {"name": file.name, "origin": file.origin, "file": format_path(file.path)}
    try:
        cluster = load_cluster(str(file.path.absolute())).cluster
    except InputError as error:
        first_line = error.message.partition("\n")[0]
        return {
            **row,
            "nodes": [],
            "head": None,
            "pools": [],
            "change_me": False,
            "error": first_line,
        }
    return {
        **row,
        "nodes": [node.name for node in cluster.nodes],
        "head": cluster.head_node.name if cluster.nodes else None,
        "pools": list(cluster.pools),
        "change_me": any(lacks_address(node) for node in cluster.nodes),
        "error": None,
    }
