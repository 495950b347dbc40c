"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def cluster_option(command: Command) -> Command:
    """Add --cluster to a command that names a run."""
    option = click.option("--cluster", metavar="C", help="Where the run is; or name it C/RUN.")
    return option(command)


def json_option(command: Command) -> Command:
    """Add --json, as the parameter `as_json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="One JSON document on stdout, nothing else."
    )(command)


def notify(message: str) -> None:
    """Show a sentence on the way: stdout has the result only."""
    click.echo(message, err=True)
