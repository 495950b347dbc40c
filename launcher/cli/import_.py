"""`launch import DIR`: a model of others becomes a run of this machine."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.cli.options import json_option
from launcher.cli.render.run_end import sample_command
from launcher.cli.render.table import print_json
from launcher.errors import InputError, NotFound
from launcher.runs.folder import require_run_name
from launcher.runs.training_requirements import require_training_packages
from nanochat.errors import DataError

KINDS = "name a folder that `launch export` has written, or upstream's base folder"


@click.command("import")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--name", help="Of the run; else dN-1, dN-2, ...")
@json_option
def command(folder: Path, name: str | None, as_json: bool) -> None:
    """Read a model: a folder that `launch export` has written, or upstream's base folder.

    It can be sampled and exported; its optimizer is not read, so it cannot be trained on.
    """
    if name is not None:
        require_run_name(name)
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        raise NotFound(f"{folder}: {what}", fix=KINDS)
    require_training_packages("launch import")
    from launcher.runs.import_ import import_run

    try:
        run = import_run(folder, name)
    except DataError as error:  # the folder's, which was asked for
        raise InputError(error.message, fix=error.fix or KINDS) from error
    if as_json:
        print_json({"run": run.name, "folder": str(run.path)})
    else:
        command = sample_command(run.name, run.spec())
        click.echo(f"run '{run.name}': {command}   lets it speak")
