"""launch cluster trust: pins the host keys of a cluster, once a person has agreed to them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from launcher.cli.options import json_option
from launcher.cli.render.table import Column, Row, print_table
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import require_addresses
from launcher.config.paths import format_path
from launcher.errors import HostError, InputError, Untrusted
from launcher.ssh.known_hosts import verify_host_key
from launcher.ssh.parallel import combine_errors
from launcher.ssh.trust import OfferedHostKey, fetch_host_keys, pin_keys

COLUMNS = [
    Column("host", lambda row: row["host"]),
    Column("address", lambda row: row["address"]),
    Column("key", lambda row: row["key_type"]),
    Column("fingerprint", lambda row: row["fingerprint"]),
    Column("status", lambda row: row["status"]),
    Column(
        "trusted",
        lambda row: "yes" if row["trusted"] else "no",
        style=lambda row: "green" if row["trusted"] else "red",
    ),
]
COMPARE = "Each machine says its own with: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"


@click.command("trust")
@click.argument("cluster")
@click.option("--yes", is_flag=True, help="Trust new keys unasked; changed ones stay refused.")
@json_option
def command(cluster: str, yes: bool, as_json: bool) -> None:
    """Show the host keys of a cluster and pin them.

    The hosts are asked without logging in. Keys that you agree to go into CLUSTER.known_hosts,
    beside the cluster file. A key that this file or your own known_hosts has stays as it is.
    """
    loaded = load_cluster(cluster)
    require_addresses(loaded, loaded.cluster.nodes)
    can_ask = sys.stdin is not None and sys.stdin.isatty()
    agreed: list[OfferedHostKey] = []
    while True:
        shown, errors = fetch_host_keys(loaded, loaded.cluster.nodes)
        open_questions = [key for key in shown if key.verdict.status in ("new", "changed")]
        new = _agreed(open_questions, ask=not yes) if yes or can_ask else []
        if new:
            pin_keys(loaded, new)
            click.echo(f"written to {format_path(loaded.known_hosts)}", err=True)
        agreed += new
        if not (new and any(isinstance(error, Untrusted) for error in errors)):
            break  # else: what lies behind a jump host that is trusted now
    print_table(COLUMNS, [_row(key, agreed) for key in shown], as_json=as_json)
    if open_questions and not (yes or can_ask):
        raise InputError(
            "there is no terminal to ask whether these keys are the right ones",
            fix=f"compare the fingerprints, then: launch cluster trust {cluster} --yes",
        )
    for key in shown:
        try:
            verify_host_key(key.target, key.key)
        except HostError as error:
            errors.append(error)
    if errors:
        raise combine_errors(errors)


def _agreed(keys: Sequence[OfferedHostKey], *, ask: bool) -> list[OfferedHostKey]:
    """Those that the user trusts. One question for all new keys, one for each changed key."""
    new = [key for key in keys if key.verdict.status == "new"]
    agreed = []
    if new:
        click.echo("New host keys:", err=True)
        for key in new:
            click.echo(
                f"  {key.target.name}  {key.target.known_host_name}  {key.key.label}", err=True
            )
        click.echo(COMPARE, err=True)
        if not ask or click.confirm(f"Trust {_these(len(new))}?", err=True):
            agreed += new
    for key in keys:
        if key.verdict.status == "changed" and key.verdict.entry:
            name, entry = key.target.name, key.verdict.entry
            click.secho(f"WARNING: THE HOST KEY OF {name} HAS CHANGED", fg="red", err=True)
            click.echo(f"  was  {entry.key.label}  ({entry.location})", err=True)
            click.echo(f"  is   {key.key.label}", err=True)
            click.echo(
                "It was reinstalled or replaced, or somebody answers in its place.", err=True
            )
            if ask and click.confirm(f"Trust the new key of {name}?", err=True):
                agreed.append(key)
    return agreed


def _these(count: int) -> str:
    return "this key" if count == 1 else f"these {count} keys"


def _row(shown: OfferedHostKey, agreed: Sequence[OfferedHostKey]) -> Row:
    entry = shown.verdict.entry
    return {
        "host": shown.target.name,
        "address": shown.target.known_host_name,
        "key_type": shown.key.kind,
        "fingerprint": shown.key.fingerprint,
        "status": shown.verdict.status,
        "trusted": shown.verdict.status == "known" or shown in agreed,
        "known_fingerprint": entry.key.fingerprint if entry else None,
        "known_from": entry.location if entry else None,
    }
