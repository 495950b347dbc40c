"""launch cluster ssh: a shell on a node, with everything that the cluster file knows of it."""

from __future__ import annotations

import shutil
import subprocess

import click

from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import require_addresses, require_node
from launcher.errors import MissingExtra
from launcher.ssh.target import node_target, openssh_command


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("cluster")
@click.argument("node")
@click.argument("remote_command", metavar="[COMMAND]...", nargs=-1, type=click.UNPROCESSED)
def command(cluster: str, node: str, remote_command: tuple[str, ...]) -> None:
    """Open a shell on a node, or run a command there."""
    loaded = load_cluster(cluster)
    target_node = require_node(loaded, node)
    require_addresses(loaded, [target_node])
    if shutil.which("ssh") is None:
        raise MissingExtra("there is no ssh program here", fix="install OpenSSH's client")
    target = node_target(loaded, target_node)
    result = subprocess.run([*openssh_command(target), *remote_command])
    raise click.exceptions.Exit(result.returncode)
