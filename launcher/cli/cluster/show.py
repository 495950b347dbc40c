"""launch cluster show: what a cluster file says, with the values that are not written in it."""

from __future__ import annotations

from typing import Any

import click

from launcher.cli.options import json_option
from launcher.cli.render.table import Column, Row, print_json, print_table
from launcher.config.cluster import Cluster
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import LoadedCluster, lacks_address
from launcher.config.paths import format_path

COLUMNS = [
    Column("node", lambda row: row["name"], style=lambda row: "bold"),
    Column("host", lambda row: row["host"], style=lambda row: "yellow" * row["change_me"]),
    Column("user", lambda row: row["user"] or "-"),
    Column("port", lambda row: str(row["port"] or "-")),
    Column("key", lambda row: row["key"] or "-"),
    Column("pool", lambda row: row["pool"]),
    Column("accelerator", lambda row: row["accelerator"]),
    Column("hardware", lambda row: _hardware(row) or "as found there"),
]


@click.command()
@click.argument("cluster")
@json_option
def command(cluster: str, as_json: bool) -> None:
    """Show the nodes of a cluster with all values, the default ones too."""
    loaded = load_cluster(cluster)
    document = _document(loaded)
    if as_json:
        print_json(document)
        return
    for key, words in _lines(loaded):
        click.echo(f"{key:<13}{words}")
    if loaded.cluster.nodes:
        click.echo()
        print_table(COLUMNS, document["nodes"], as_json=False)
        click.echo("-: as ssh would have it")


def _document(loaded: LoadedCluster) -> dict[str, Any]:
    """The file's keys with their effective values, and where it is."""
    cluster = loaded.cluster
    document = cluster.model_dump(mode="json")
    document["head"] = cluster.head_node.name if cluster.nodes else None
    for node, row in zip(cluster.nodes, document["nodes"], strict=True):
        row["change_me"] = lacks_address(node)
    place = {"file": format_path(loaded.path), "known_hosts": format_path(loaded.known_hosts)}
    return {**document, "pools": list(cluster.pools), **place}


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
    """Those that are written."""
    keys = ("index_url", "extra_index_url", "find_links")
    named = [(key.replace("_", " "), getattr(cluster.environment, key)) for key in keys]
    return [(words, value) for words, value in named if value]


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
    return ", ".join(words.format(value) for words, value in parts.items() if value is not None)
