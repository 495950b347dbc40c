"""launch cluster status: what runs on each host."""

from __future__ import annotations

import click

from launcher.cli.output import Column, json_option, print_table
from launcher.config.cluster import load_cluster, require_addresses
from launcher.errors import HostError
from launcher.raycluster.control import host_state, runs_at_work
from launcher.transport.together import all_of, close_all, connect_each, in_parallel

COLOURS = {"up": "green", "down": "yellow", "orphaned": "red", "unreachable": "red"}
COLUMNS = [
    Column("node", lambda row: row["node"]),
    Column("status", lambda row: row["status"], style=lambda row: COLOURS.get(row["status"], "")),
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
    name, head = loaded.cluster.name, loaded.cluster.head_node.name
    connections, errors = connect_each(loaded, nodes)
    try:
        states, lost = in_parallel(connections, lambda connection: host_state(connection, name))
        running: list[str] = []
        if head in states:
            running = runs_at_work({head: connections[head]}, name)
        rows = []
        for node in nodes:
            state = states.get(node.name)
            rows.append(
                {
                    "node": node.name,
                    "status": state.status if state else "unreachable",
                    "address": connections[node.name].address if state else None,
                    "starts": state.starts if state else None,
                    "boot_hook": state.boot_hook if state else None,
                    "runs": running if node.name == head else [],
                }
            )
    finally:
        close_all(connections)
    print_table(COLUMNS, rows, as_json=as_json)
    failed: list[HostError] = [*errors, *lost]
    if failed:
        raise all_of(failed)
