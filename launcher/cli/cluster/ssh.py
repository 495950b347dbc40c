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
@click.argument("words", metavar="[COMMAND]...", nargs=-1, type=click.UNPROCESSED)
def command(cluster: str, node: str, words: tuple[str, ...]) -> None:
    """Open a shell on a node, or run a command there."""
    loaded = load_cluster(cluster)
    chosen = require_node(loaded, node)
    require_addresses(loaded, [chosen])
    if shutil.which("ssh") is None:
        raise MissingExtra("there is no ssh program here", fix="install OpenSSH's client")
    target = node_target(loaded, chosen)
    done = subprocess.run([*openssh_command(target), *words])
    raise click.exceptions.Exit(done.returncode)
