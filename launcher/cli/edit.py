"""launch edit: opens a file in the user's editor and checks it afterwards."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import click

from launcher.config.paths import find_recipe, launch_home, shipped_recipes, shown_path
from launcher.config.recipe import load_recipe
from launcher.errors import InputError, LaunchError

EDITORS = ("nano", "vi", "notepad")


@click.group("edit", invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """Edit a recipe in $VISUAL or $EDITOR."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@command.command("recipe")
@click.argument("name")
def edit_recipe(name: str) -> None:
    """Edit a recipe and check it.

    A shipped recipe is copied first: to ./recipes where that folder exists, else to LAUNCH_HOME.
    """
    path = _own(find_recipe(name))
    click.echo(f"editing {shown_path(path)}")
    _open_editor(path)
    load_recipe(str(path.absolute()))
    click.echo(f"{shown_path(path)} is a valid recipe")


def _own(path: Path) -> Path:
    """The file itself, or the user's copy of a shipped one."""
    here = Path("recipes")
    shipped = path.resolve().parent == shipped_recipes().resolve()
    if not shipped or here.resolve() == shipped_recipes().resolve():
        return path
    folder = here if here.is_dir() else launch_home() / "recipes"
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / path.name
    if not copy.exists():
        shutil.copyfile(path, copy)  # not its mode: shipped files may be read-only
    return copy


def _open_editor(path: Path) -> None:
    """Returns when the editor has closed the file."""
    words = _editor()
    try:
        status = subprocess.run([*words, str(path)]).returncode
    except OSError as error:
        message = f"cannot start the editor {words[0]!r}: {error.strerror}"
        raise InputError(message, fix="set VISUAL or EDITOR to an editor") from None
    if status != 0:
        raise LaunchError(f"the editor ended with status {status}: {shown_path(path)} is kept")


def _editor() -> list[str]:
    """The command, with its arguments: EDITOR may be `code --wait`."""
    if chosen := os.environ.get("VISUAL") or os.environ.get("EDITOR"):
        return shlex.split(chosen, posix=os.name != "nt")
    for name in EDITORS:
        if shutil.which(name):
            return [name]
    raise InputError("no editor found", fix="set VISUAL or EDITOR to an editor")
