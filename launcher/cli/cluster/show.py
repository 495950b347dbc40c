"""launch cluster show: what a cluster file says, with the values that are not written in it."""

from __future__ import annotations

from typing import Any

import click

from launcher.cli.options import json_option
from launcher.cli.render.cluster_file import print_cluster
from launcher.cli.render.table import print_json
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import LoadedCluster, lacks_address
from launcher.config.paths import format_path


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
    print_cluster(loaded, document["nodes"])


def _document(loaded: LoadedCluster) -> dict[str, Any]:
    """The file's keys with their effective values, and where it is."""
    cluster = loaded.cluster
    document = cluster.model_dump(mode="json")
    document["head"] = cluster.head_node.name if cluster.nodes else None
    for node, row in zip(cluster.nodes, document["nodes"], strict=True):
        row["change_me"] = lacks_address(node)
    paths = {"file": format_path(loaded.path), "known_hosts": format_path(loaded.known_hosts)}
    return {**document, "pools": list(cluster.pools), **paths}
