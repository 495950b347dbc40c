"""launch cluster status: what runs on each host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from launcher.cli.options import json_option
from launcher.cli.render.table import Column, print_table
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import LoadedCluster, require_addresses
from launcher.config.subcluster import subclusters
from launcher.errors import HostError
from launcher.raycluster.control import active_runs, host_state
from launcher.raycluster.drain import list_drained
from launcher.ssh.parallel import close_all, combine_errors, in_parallel, try_connect_all
from launcher.ssh.protocol import Connection

COLOURS = {"up": "green", "down": "yellow", "orphaned": "red", "unreachable": "red"}
COLUMNS = [
    Column("node", lambda row: row["node"]),
    Column(
        "status",
        lambda row: row["status"] + ", drained" * row["drained"],
        style=lambda row: COLOURS.get(row["status"], ""),
    ),
    Column("address", lambda row: row["address"] or "-"),
    Column("ray starts", lambda row: str(row["starts"] or "-"), right=True),
    Column("at boot", lambda row: row["boot_hook"] or "-"),
    Column("runs", lambda row: ", ".join(row["runs"]) or "-"),
]


@click.command()
@click.argument("cluster")
@json_option
def command(cluster: str, as_json: bool) -> None:
    """Show, for each node, whether Ray is up there; and the runs at work, at the head."""
    loaded = load_cluster(cluster)
    nodes = tuple(loaded.cluster.nodes)
    require_addresses(loaded, nodes)
    connections, errors = try_connect_all(loaded, nodes)
    try:
        rows: dict[str, dict[str, Any]] = {}
        drained: set[str] = set()
        for part in subclusters(loaded):
            there = {
                node.name: connections[node.name]
                for node in part.cluster.nodes
                if node.name in connections
            }
            if part.cluster.head_node.name in there:
                drained |= list_drained(there[part.cluster.head_node.name], part.cluster.name)
            found, lost = _rows(part, there)
            for row in found:  # a host that is down in one part of the file may be up in another
                if row["node"] not in rows or row["status"] != "down":
                    rows[row["node"]] = row
            errors += [error for error in lost if error.host not in {each.host for each in errors}]
    finally:
        close_all(connections)
    unreachable = dict.fromkeys(("address", "starts", "boot_hook")) | {"status": "unreachable"}
    all_rows = [
        (rows.get(node.name) or {"node": node.name, "runs": [], **unreachable})
        | {"drained": node.name in drained}
        for node in nodes
    ]
    print_table(COLUMNS, all_rows, as_json=as_json)
    if errors:
        raise combine_errors(errors)


def _rows(
    part: LoadedCluster, connections: Mapping[str, Connection]
) -> tuple[list[dict[str, Any]], list[HostError]]:
    """Of the hosts that answer; why the others do not."""
    name, head = part.cluster.name, part.cluster.head_node.name
    states, lost = in_parallel(connections, lambda connection: host_state(connection, name))
    running = active_runs({head: connections[head]}, name) if head in states else []
    if part.subcluster is not None:  # the table is the file's
        running = [f"{name}/{run}" for run in running]
    rows = [
        {
            "node": node,
            "status": state.status,
            "address": connections[node].address,
            "starts": state.starts,
            "boot_hook": state.boot_hook,
            "runs": running if node == head else [],
        }
        for node, state in states.items()
    ]
    return rows, lost
