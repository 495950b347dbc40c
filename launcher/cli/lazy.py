"""Groups whose commands are imported only to run them: `launch --help` needs neither pydantic nor
YAML nor rich, which are 0.1 s of imports."""

from __future__ import annotations

import difflib
import importlib
import keyword
import os
import sys
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """`commands_help`: name -> one line of help; the command of that name is `command` in the
    module PACKAGE.NAME, or PACKAGE.NAME_ if NAME is a keyword of Python."""

    def __init__(
        self, *arguments: Any, package: str, commands_help: Mapping[str, str], **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._package = package
        self._help = commands_help

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._help)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._help:
            return None
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        module = importlib.import_module(f"{self._package}.{name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self._help:
            nearest = difflib.get_close_matches(args[0], self._help, n=1)
            hint = f": did you mean {nearest[0]!r}?" if nearest else ""
            raise click.UsageError(f"unknown command {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self._help.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:  # `launch logs d4 | head`: the reader has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        return result
