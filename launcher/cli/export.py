"""`launch export RUN DIR`: a model as files for others."""

from __future__ import annotations

import json
import secrets
import shlex
from pathlib import Path, PurePosixPath
from typing import Any

import click

from launcher.cli.options import cluster_option, json_option, notify
from launcher.cli.render.table import print_json
from launcher.errors import CommandFailed, InputError
from launcher.operations.run_address import open_run_to_read
from launcher.raycluster.control import ask_host
from launcher.raycluster.spec import cluster_folder
from launcher.remote.cluster_runs import RemoteRun
from launcher.remote.fetch_checkpoints import fetch_weights
from launcher.runs.export import LAYOUTS, export
from launcher.runs.run import Run
from launcher.runs.training_requirements import missing_packages, require_training_packages

EXPORT_SECONDS = 600.0


@click.command("export")
@click.argument("run")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "layout",
    type=click.Choice(LAYOUTS),
    default=LAYOUTS[0],
    show_default=True,
    help="nanochat: a base folder for upstream's tools.",
)
@cluster_option
@json_option
def command(run: str, folder: Path, layout: str, cluster: str | None, as_json: bool) -> None:
    """Write the newest checkpoint's model into DIR: weights, shape, tokenizer and model card."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "is not empty" if folder.is_dir() else "is a file"
        raise InputError(f"{folder} {what}", fix="name a new or an empty folder")
    with open_run_to_read(run, cluster, notify=notify) as opened:
        exported = _export(opened, folder, layout)
    if as_json:
        print_json({"run": opened.folder.name, "format": layout, "folder": str(folder), **exported})
        return
    click.echo(f"step {exported['step']:,} of run '{opened.folder.name}' is in {folder}:")
    for name in exported["files"]:
        click.echo(f"  {name}")
    if layout == "nanochat":
        click.echo(f"upstream's tools load it with NANOCHAT_BASE_DIR={folder.absolute()}")


def _export(run: Run, folder: Path, layout: str) -> dict[str, Any]:
    """Export on this machine if torch is installed, else on the head of the run's cluster."""
    if isinstance(run, RemoteRun) and missing_packages():
        return _export_on_head(run, folder, layout)
    require_training_packages("launch export")
    if isinstance(run, RemoteRun):
        fetch_weights(run)
    return export(run.folder, folder, layout)


def _export_on_head(run: RemoteRun, folder: Path, layout: str) -> dict[str, Any]:
    head = run.runs.head
    remote_folder = f"{cluster_folder(run.cluster)}/exports/{run.name}-{secrets.token_hex(4)}"
    try:
        exported: dict[str, Any] = ask_host(
            head, run.runs.spec, "launcher.agent.export",
            f"~/{run.path}", f"~/{remote_folder}", layout, seconds=EXPORT_SECONDS,
        )  # fmt: skip
        for name, digest in exported["files"].items():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise CommandFailed(head.name, f"it names a file {json.dumps(name)}")
            head.fetch(f"{remote_folder}/{name}", folder / name, sha256=digest)
    finally:
        head.run(f"rm -rf {shlex.quote(remote_folder)}", step="remove the export there")
    return exported
