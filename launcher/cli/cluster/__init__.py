"""`launch cluster ...`: one module per command, imported to run it."""

from __future__ import annotations

import click

from launcher.cli.lazy import LazyGroup

COMMANDS = {
    "list": "List the cluster files.",
    "new": "Write a cluster file.",
    "show": "Show what a cluster file says.",
    "trust": "Show host keys and pin them.",
    "check": "Say what would go wrong, and how to mend it.",
    "up": "Make the hosts ready and start Ray.",
    "status": "Show what runs on each host.",
    "drain": "Have a node train no more; runs lose no step.",
    "dashboard": "Open Ray's dashboard through a tunnel.",
    "ssh": "Open a shell on a node.",
    "down": "Stop Ray; with --purge leave the hosts as they were.",
}


@click.group(
    "cluster",
    cls=LazyGroup,
    package="launcher.cli.cluster",
    commands_help=COMMANDS,
    invoke_without_command=True,
)
@click.pass_context
def command(context: click.Context) -> None:
    """Make machines ready over SSH, look after them, leave them as they were."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
