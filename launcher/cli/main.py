"""The `launch` command: which subcommands there are, and how errors leave the program."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import time
from typing import Any

import click

from launcher import __version__
from launcher.errors import Interrupted, LaunchError
from nanochat.errors import NanochatError

ENTERED = time.time()  # as near to Enter as our own code gets

# name -> one line of help. The module launcher.cli.<name> is imported only to run it, which
# keeps `launch --help` free of pydantic, YAML and rich: 0.1 s of imports.
COMMANDS = {
    "recipe": "Train the model of a recipe.",
    "runs": "List the runs.",
    "logs": "Show the steps of a run.",
    "stop": "Save and stop a run.",
    "resume": "Go on with a stopped run.",
    "sample": "Let a trained model write.",
    "size": "Show the sizing table, the guide's figures beside ours.",
    "edit": "Edit a recipe in $VISUAL or $EDITOR.",
}


class LazyGroup(click.Group):
    """A group that imports a subcommand's module when it is asked for by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"launcher.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS:
            nearest = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f": did you mean {nearest[0]!r}?" if nearest else ""
            raise click.UsageError(f"unknown command {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:  # `launch logs d4 | head`: the reader has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        return result


@click.group(cls=LazyGroup, invoke_without_command=True)
@click.version_option(__version__, message="launch %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Train nanochat models on the machines you own."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main() -> None:
    """The console entry: runs a command and exits with its code, never with a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by the shell
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # cp1252 has no ✗
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    """The exit code. Errors are printed to stderr."""
    try:
        return cli.main(arguments, prog_name="launch", standalone_mode=False) or 0
    except Interrupted as error:
        _print_error(error.message, error.fix)
        return error.exit_code
    except LaunchError as error:
        _print_error(f"error: {error.message}", error.fix)
        return error.exit_code
    except click.UsageError as error:
        message = error.format_message()
        help_command = f"{error.ctx.command_path} --help" if error.ctx else "launch --help"
        _print_error(f"error: {message[0].lower()}{message[1:].rstrip('.')}", help_command)
        return error.exit_code
    except click.Abort:  # Ctrl-C
        return Interrupted.exit_code
    except NanochatError as error:
        _print_error(f"error: {error.message}", error.fix)
        return 1
    except OSError as error:
        _print_error(f"error: {error.strerror}: {error.filename}", None)
        return 1
    except Exception as error:
        if os.environ.get("LAUNCH_DEBUG"):
            raise
        _print_error(
            f"internal error: {type(error).__name__}: {error}",
            "set LAUNCH_DEBUG=1 to see where it comes from, and report it",
        )
        return 1


def _print_error(message: str, fix: str | None) -> None:
    click.echo(message, err=True)
    if fix:
        click.echo(f"fix: {fix}", err=True)
