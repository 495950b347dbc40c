"""The `launch` command: which subcommands there are, and how errors leave the program."""

from __future__ import annotations

import os
import sys
import time

import click

from launcher.cli.lazy import LazyGroup
from launcher.errors import HostsFailed, Interrupted, LaunchError
from launcher.version import __version__
from nanochat.errors import NanochatError

ENTERED = time.time()  # as near to Enter as our own code gets

COMMANDS = {
    "recipe": "Train the model of a recipe.",
    "runs": "List the runs; compare or remove some.",
    "logs": "Show the steps of a run.",
    "stop": "Save and stop a run.",
    "resume": "Go on with a stopped run.",
    "sample": "Let a trained model write.",
    "plot": "Draw loss, bits per byte and speed of runs.",
    "export": "Write a model for others, or for upstream's tools.",
    "import": "Read a model that was exported, or upstream's.",
    "cluster": "Make machines ready, look after them, leave them clean.",
    "plan": "Say whether a recipe fits, how long it takes, if it is worth it.",
    "size": "Show the sizing table, the guide's figures beside ours.",
    "measure": "Measure machines and what is between them; runs use it.",
    "edit": "Edit a recipe or a cluster in $VISUAL or $EDITOR.",
}


@click.group(
    cls=LazyGroup, package="launcher.cli", commands_help=COMMANDS, invoke_without_command=True
)
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
        if error.message:
            _print_error(error.message, error.fix)
        return error.exit_code
    except HostsFailed as error:
        _print_error("\n".join(f"error: {failure.message}" for failure in error.errors), error.fix)
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
        _print_error("interrupted", None)
        return Interrupted.exit_code
    except NanochatError as error:
        _print_error(f"error: {error.message}", error.fix)
        return 1
    except OSError as error:
        parts = [error.strerror or str(error) or type(error).__name__, error.filename]
        _print_error(f"error: {': '.join(str(part) for part in parts if part)}", None)
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
        for line in fix.splitlines():
            click.echo(f"fix: {line}", err=True)
