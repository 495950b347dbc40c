"""launch cluster new: a short cluster file for machines that are named on the command line."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from launcher.config.address import parse_address
from launcher.config.cluster import Cluster
from launcher.config.paths import SUFFIXES, format_path, user_folder
from launcher.config.schema import SCHEMA_LINE, write_schema
from launcher.config.validation import validate
from launcher.config.yaml_source import Problem, SourcePosition, YamlSource
from launcher.errors import InputError
from nanochat.atomic_write import write_atomically


@click.command()
@click.argument("name")
@click.option(
    "--node", "nodes", multiple=True, required=True, metavar="[USER@]HOST[:PORT]",
    help="A machine, once for each; the first is the head. IPv6 as [::1]:22.",
)  # fmt: skip
@click.option(
    "--key", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
    help="Private key for all of them; else as ssh would.",
)  # fmt: skip
@click.option(
    "--accelerator", type=click.Choice(["cpu", "cuda", "rocm"]), default="cpu", show_default=True,
    help="What they compute with.",
)  # fmt: skip
def command(name: str, nodes: tuple[str, ...], key: str | None, accelerator: str) -> None:
    """Write a cluster file: to ./clusters where that folder exists, else to LAUNCH_HOME."""
    source = _source(name, nodes, key, accelerator)
    validate(Cluster, source)
    folder = user_folder("cluster")
    for suffix in SUFFIXES:
        if (existing := folder / f"{name}{suffix}").exists():
            fix = f"choose another name, or: launch edit cluster {name}"
            raise InputError(f"{format_path(existing)} exists already", fix=fix)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    write_atomically(path, _text(name, source.data["nodes"]).encode())
    write_schema("cluster", folder)
    click.echo(f"written to {format_path(path)}; next:")
    for line in (
        f"launch cluster trust {name}            compare the host keys, pin them",
        f"launch cluster check {name}            what would go wrong, and how to mend it",
        f"launch recipe d4 --cluster {name}      train",
    ):
        click.echo(f"  {line}")


def _source(name: str, nodes: Sequence[str], key: str | None, accelerator: str) -> YamlSource:
    """What the file will say; problems point at the command line.

    Raises ConfigError for a node that is not [USER@]HOST[:PORT].
    """
    source = YamlSource(data={"name": name, "nodes": []})
    source.values[()] = source.values["name",] = SourcePosition("NAME", 1, 1, len(name), name)
    for index, argument in enumerate(nodes):
        position = SourcePosition("--node", 1, 1, len(argument), argument)
        address = parse_address(argument)
        if address is None:
            message = "expected [USER@]HOST[:PORT], as in ada@pc1:2222 or [::1]:22"
            raise source.error(Problem(position, message))
        node = {
            "host": address.host,
            "user": address.user,
            "port": address.port,
            "key": _from_anywhere(key) if key else None,
            "accelerator": None if accelerator == "cpu" else accelerator,
        }
        source.data["nodes"].append({k: value for k, value in node.items() if value is not None})
        for field in node:
            source.values["nodes", index, field] = position
    return source


def _from_anywhere(key: str) -> str:
    """~/.ssh/lab, where it is below the home folder."""
    path, home = Path(key).absolute(), Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)


def _text(name: str, nodes: Sequence[Mapping[str, Any]]) -> str:
    """The file's."""
    text = yaml.safe_dump(list(nodes), sort_keys=False, allow_unicode=True)
    return (
        f"{SCHEMA_LINE}"
        f"# The first node is the head: it keeps the runs. Next: launch cluster trust {name}\n"
        f"nodes:\n{textwrap.indent(text, '  ')}"
    )
