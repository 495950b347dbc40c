"""`launch plot RUN...`: how runs went, as a picture."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import click

from launcher.cli.options import cluster_option, json_option, notify
from launcher.cli.render.table import print_json
from launcher.errors import InputError, MissingExtra
from launcher.operations.run_address import open_run_to_read
from launcher.runs.history import RunHistory
from launcher.runs.run import run_address

NAMED_RUNS = 3  # more names than these make no name for a file
KINDS = (".png", ".svg", ".pdf")


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file that ends in .png, .svg or .pdf; else RUN.png or RUN-OTHER.png here.",
)
@cluster_option
@json_option
def command(runs: tuple[str, ...], output: Path | None, cluster: str | None, as_json: bool) -> None:
    """Draw loss, bits per byte and speed of one run or several."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra(
            "`launch plot` needs matplotlib, which is not installed here",
            fix="pip install 'nanochat-launcher[plot]', or in a checkout: pip install '.[plot]'",
        )
    histories = [read_history(name, cluster) for name in runs]
    path = output or Path(default_name([name.rpartition("/")[2] for name in runs]))
    if path.suffix.lower() not in KINDS:
        raise InputError(
            f"{path}: cannot draw this kind of file", fix=f"end it in {', '.join(KINDS)}"
        )
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder", fix="name one that is there")
    from launcher.runs.plot import plot_runs  # matplotlib: half a second

    plot_runs(histories, path)
    if as_json:
        print_json({"file": str(path), "runs": [history.name for history in histories]})
    else:
        click.echo(path)


def default_name(runs: Sequence[str]) -> str:
    if len(runs) <= NAMED_RUNS:
        return f"{'-'.join(runs)}.png"
    return f"{runs[0]}-and-{len(runs) - 1}-more.png"


def read_history(name: str, cluster: str | None) -> RunHistory:
    with open_run_to_read(name, cluster, notify=notify) as run:
        run.refresh()
        return RunHistory.of(run.folder, run_address(run))
