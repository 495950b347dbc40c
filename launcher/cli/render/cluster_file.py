"""What cluster files say, as a person reads it."""

from __future__ import annotations

from collections.abc import Sequence

import click

from launcher.cli.render.table import Column, Row, print_table
from launcher.config.cluster import LOCAL, Cluster
from launcher.config.loaded_cluster import LoadedCluster
from launcher.config.paths import format_path

CLUSTER_COLUMNS = [
    Column("name", lambda row: row["name"], style=lambda row: "bold"),
    Column("nodes", lambda row: str(len(row["nodes"]) or "-"), right=True),
    Column("head", lambda row: row["head"] or "-"),
    Column("pools", lambda row: ", ".join(row["pools"]) or "-"),
    Column("where", lambda row: row["origin"]),
    Column("file", lambda row: row["file"]),
    Column("", lambda row: _note(row), style=lambda row: "red" if row["error"] else "yellow"),
]
NODE_COLUMNS = [
    Column("node", lambda row: row["name"], style=lambda row: "bold"),
    Column("host", lambda row: row["host"], style=lambda row: "yellow" * row["change_me"]),
    Column("user", lambda row: row["user"] or "-"),
    Column("port", lambda row: str(row["port"] or "-")),
    Column("key", lambda row: row["key"] or "-"),
    Column("pool", lambda row: row["pool"]),
    Column("accelerator", lambda row: row["accelerator"]),
    Column("hardware", lambda row: _hardware(row) or "as found there"),
]


def print_cluster(loaded: LoadedCluster, nodes: Sequence[Row]) -> None:
    """`nodes`: those of the document of `launch cluster show --json`."""
    for key, text in _lines(loaded):
        click.echo(f"{key:<13}{text}")
    if nodes:
        click.echo()
        print_table(NODE_COLUMNS, nodes, as_json=False)
        click.echo("-: as ssh would have it")


def _lines(loaded: LoadedCluster) -> list[tuple[str, str]]:
    cluster = loaded.cluster
    first = [("cluster", loaded.name), ("file", format_path(loaded.path))]
    if not cluster.nodes:
        return [*first, ("nodes", "none: this machine, without SSH; runs start right here")]
    return [
        *first,
        ("head", cluster.head_node.name),
        ("pools", ", ".join(cluster.pools)),
        ("network", _network(cluster)),
        ("backend", cluster.backend or "chosen to fit the accelerators"),
        ("python", cluster.environment.python or "the nodes' own where they are equal"),
        *_indexes(cluster),
        ("push wheels", cluster.environment.push),
        ("idle", _idle(cluster)),
        ("host keys", format_path(loaded.known_hosts)),
    ]


def _network(cluster: Cluster) -> str:
    network = cluster.network
    link = f", {network.gbit_per_second:g} Gbit/s" if network.gbit_per_second else ""
    return f"{network.profile}, interface {network.interface or 'found out on each node'}{link}"


def _indexes(cluster: Cluster) -> list[tuple[str, str]]:
    """Return the label and the value of each package index that the file sets."""
    keys = ("index_url", "extra_index_url", "find_links")
    named = [(key.replace("_", " "), getattr(cluster.environment, key)) for key in keys]
    return [(text, value) for text, value in named if value]


def _idle(cluster: Cluster) -> str:
    minutes = cluster.idle_minutes
    return f"Ray ends after {minutes:g} minutes without a run" if minutes else "Ray never ends"


def _hardware(row: Row) -> str:
    """What is written of it."""
    gpus = f"{row['gpus']} x " if row["gpus"] else ""
    parts = {
        "{} cores": row["cpus"],
        "{}": f"{gpus}{row['gpu_model'] or 'GPU'}" if row["gpus"] or row["gpu_model"] else None,
        "{:g} GB": row["memory_gb"],
        "{:g} W": row["watts"],
    }
    return ", ".join(text.format(value) for text, value in parts.items() if value is not None)


def _note(row: Row) -> str:
    if row["error"]:
        return f"wrong: {row['error']}"
    if row["name"] == LOCAL:
        return "this machine"
    return f"CHANGE-ME: launch edit cluster {row['name']}" if row["change_me"] else ""
