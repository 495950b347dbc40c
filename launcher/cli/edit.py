"""launch edit: opens a file in the user's editor and checks it afterwards."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import click

from launcher.config.cluster_file import find_cluster, load_cluster
from launcher.config.loaded_cluster import lacks_address
from launcher.config.paths import (
    ConfigKind,
    config_folders,
    find_config_file,
    format_path,
    shipped_folder,
    user_folder,
)
from launcher.config.recipe import load_recipe
from launcher.config.schema import write_schema
from launcher.errors import InputError, LaunchError
from nanochat.atomic_write import write_atomically

EDITORS = ("nano", "vi", "notepad")


@click.group("edit", invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """Edit a recipe or a cluster in $VISUAL or $EDITOR."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@command.command("recipe")
@click.argument("name")
def edit_recipe(name: str) -> None:
    """Edit a recipe and check it.

    A shipped recipe is copied first: to ./recipes where that folder exists, else to LAUNCH_HOME.
    """
    path = _copy_and_edit("recipe", find_config_file("recipe", name))
    load_recipe(str(path.absolute()))
    click.echo(f"{format_path(path)} is a valid recipe")


@command.command("cluster")
@click.argument("name")
def edit_cluster(name: str) -> None:
    """Edit a cluster file and check it.

    A shipped one is copied first: to ./clusters where that folder exists, else to LAUNCH_HOME.
    """
    path = _copy_and_edit("cluster", find_cluster(name))
    cluster = load_cluster(str(path.absolute())).cluster
    click.echo(f"{format_path(path)} is a valid cluster")
    if unchanged := [node.name for node in cluster.nodes if lacks_address(node)]:
        click.echo(f"still without an address: {', '.join(unchanged)}")


def _copy_and_edit(kind: ConfigKind, path: Path) -> Path:
    """Open the user's own file in the editor. Return it when the editor has closed it."""
    path = _user_file(kind, path)
    click.echo(f"editing {format_path(path)}")
    _open_editor(path)
    return path


def _user_file(kind: ConfigKind, path: Path) -> Path:
    """The file itself, or the user's copy of a shipped one."""
    shipped = shipped_folder(kind).resolve()
    if path.resolve().parent != shipped or config_folders(kind)["here"].resolve() == shipped:
        return path
    folder = user_folder(kind)
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / path.name
    if not copy.exists():
        write_atomically(copy, path.read_bytes())
    write_schema(kind, folder)
    return copy


def _open_editor(path: Path) -> None:
    """Returns when the editor has closed the file."""
    editor = _editor()
    try:
        status = subprocess.run([*editor, str(path)]).returncode
    except OSError as error:
        message = f"cannot start the editor {editor[0]!r}: {error.strerror}"
        raise InputError(message, fix="set VISUAL or EDITOR to an editor") from None
    if status != 0:
        raise LaunchError(f"the editor ended with status {status}: {format_path(path)} is kept")


def _editor() -> list[str]:
    """The command, with its arguments: EDITOR may be `code --wait`."""
    if configured := os.environ.get("VISUAL") or os.environ.get("EDITOR"):
        return shlex.split(configured, posix=os.name != "nt")
    for name in EDITORS:
        if shutil.which(name):
            return [name]
    raise InputError("no editor found", fix="set VISUAL or EDITOR to an editor")
