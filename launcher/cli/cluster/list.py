"""launch cluster list: the cluster files that a name finds."""

from __future__ import annotations

import click

from launcher.cli.options import json_option
from launcher.cli.render.table import Column, Row, print_table
from launcher.config.cluster import LOCAL
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import lacks_address
from launcher.config.paths import ConfigFile, format_path, list_config_files
from launcher.errors import InputError

COLUMNS = [
    Column("name", lambda row: row["name"], style=lambda row: "bold"),
    Column("nodes", lambda row: str(len(row["nodes"]) or "-"), right=True),
    Column("head", lambda row: row["head"] or "-"),
    Column("pools", lambda row: ", ".join(row["pools"]) or "-"),
    Column("where", lambda row: row["origin"]),
    Column("file", lambda row: row["file"]),
    Column("", lambda row: _note(row), style=lambda row: "red" if row["error"] else "yellow"),
]


@click.command()
@json_option
def command(as_json: bool) -> None:
    """List the clusters: ./clusters (here), LAUNCH_HOME (home), and those that came along."""
    rows = [_row(file) for file in list_config_files("cluster")]
    print_table(COLUMNS, sorted(rows, key=lambda row: row["name"] != LOCAL), as_json=as_json)


def _row(file: ConfigFile) -> Row:
    row = {"name": file.name, "origin": file.origin, "file": format_path(file.path)}
    try:
        cluster = load_cluster(str(file.path.absolute())).cluster
    except InputError as error:
        first = error.message.partition("\n")[0]
        return {**row, "nodes": [], "head": None, "pools": [], "change_me": False, "error": first}
    return {
        **row,
        "nodes": [node.name for node in cluster.nodes],
        "head": cluster.head_node.name if cluster.nodes else None,
        "pools": list(cluster.pools),
        "change_me": any(lacks_address(node) for node in cluster.nodes),
        "error": None,
    }


def _note(row: Row) -> str:
    if row["error"]:
        return f"wrong: {row['error']}"
    if row["name"] == LOCAL:
        return "this machine"
    return f"CHANGE-ME: launch edit cluster {row['name']}" if row["change_me"] else ""
