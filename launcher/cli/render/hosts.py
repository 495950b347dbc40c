"""What is on hosts and what was done there, as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import click

from launcher.cli.render.table import Column
from launcher.formatting import format_bytes
from launcher.hosts.preflight import Finding
from launcher.provision.host_plan import Operation, SendFile
from launcher.provision.purge import RemovedPath

MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}
STATUS_COLOURS = {"up": "green", "down": "yellow", "orphaned": "red", "unreachable": "red"}
STATUS_COLUMNS = [
    Column("node", lambda row: row["node"]),
    Column(
        "status",
        lambda row: row["status"] + ", drained" * row["drained"],
        style=lambda row: STATUS_COLOURS.get(row["status"], ""),
    ),
    Column("address", lambda row: row["address"] or "-"),
    Column("ray starts", lambda row: str(row["starts"] or "-"), right=True),
    Column("at boot", lambda row: row["boot_hook"] or "-"),
    Column("runs", lambda row: ", ".join(row["runs"]) or "-"),
]


def print_findings(findings: list[Finding]) -> None:
    host = ""
    for finding in findings:
        if finding.host != host:
            host = finding.host
            click.secho(host, bold=True)
        mark, colour = MARKS[finding.severity]
        click.echo(f"  {click.style(mark, fg=colour)} {finding.code:<18}{finding.message}")
        if finding.fix and finding.severity != "ok":
            click.echo(f"      fix: {finding.fix}")


def print_shutdown(
    fetched: Mapping[str, str],
    stopped: Sequence[str],
    removed: Mapping[str, Sequence[RemovedPath]],
    boot_hooks: Mapping[str, Sequence[str]],
) -> None:
    for run, path in fetched.items():
        click.echo(f"run '{run}': its newest checkpoint is at {path}")
    click.echo(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")
    for node, items in removed.items():
        click.secho(node, bold=True)
        for item in items:
            click.echo(f"  removed ~/.launch/{item.path}  {format_bytes(item.bytes)}")
        for hook in boot_hooks[node]:
            click.echo(f"  removed {hook}")
        if not items and not boot_hooks[node]:
            click.echo("  there was nothing to remove")


def operation_lines(operations: Sequence[Operation]) -> Iterator[str]:
    """Files that go to one folder as one line: an environment is a hundred wheels."""
    for folder, group in groupby(operations, key=_folder):
        items = list(group)
        if folder is None or len(items) == 1:
            yield from map(str, items)
        else:
            yield f"send {len(items)} files to ~/{folder}   (--json lists them)"


def _folder(operation: Operation) -> str | None:
    """Return the folder to which an operation sends a file, or None if no file is sent."""
    return operation.path.rpartition("/")[0] if isinstance(operation, SendFile) else None
