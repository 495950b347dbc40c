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
from launcher.ssh.host_key_scan import OfferedHostKey, fetch_host_keys, pin_keys
from launcher.ssh.known_hosts import verify_host_key
from launcher.ssh.parallel import combine_errors

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
    trusted: list[OfferedHostKey] = []
    while True:
        offered, errors = fetch_host_keys(loaded, loaded.cluster.nodes)
        open_questions = [key for key in offered if key.verdict.status in ("new", "changed")]
        new = _ask_to_trust(open_questions, ask=not yes) if yes or can_ask else []
        if new:
            pin_keys(loaded, new)
            click.echo(f"written to {format_path(loaded.known_hosts)}", err=True)
        trusted += new
        if not (new and any(isinstance(error, Untrusted) for error in errors)):
            break  # else: what lies behind a jump host that is trusted now
    print_table(COLUMNS, [_row(key, trusted) for key in offered], as_json=as_json)
    if open_questions and not (yes or can_ask):
        raise InputError(
            "there is no terminal to ask whether these keys are the right ones",
            fix=f"compare the fingerprints, then: launch cluster trust {cluster} --yes",
        )
    for key in offered:
        try:
            verify_host_key(key.target, key.key)
        except HostError as error:
            errors.append(error)
    if errors:
        raise combine_errors(errors)


def _ask_to_trust(keys: Sequence[OfferedHostKey], *, ask: bool) -> list[OfferedHostKey]:
    """Return the keys that the user trusts. Ask once for all new keys, and for each changed key."""
    new = [key for key in keys if key.verdict.status == "new"]
    trusted = []
    if new:
        click.echo("New host keys:", err=True)
        for key in new:
            click.echo(
                f"  {key.target.name}  {key.target.known_host_name}  {key.key.label}", err=True
            )
        click.echo(COMPARE, err=True)
        if not ask or click.confirm(f"Trust {_format_key_count(len(new))}?", err=True):
            trusted += new
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
                trusted.append(key)
    return trusted


def _format_key_count(count: int) -> str:
    return "this key" if count == 1 else f"these {count} keys"


def _row(offered: OfferedHostKey, trusted: Sequence[OfferedHostKey]) -> Row:
    entry = offered.verdict.entry
    return {
        "host": offered.target.name,
        "address": offered.target.known_host_name,
        "key_type": offered.key.kind,
        "fingerprint": offered.key.fingerprint,
        "status": offered.verdict.status,
        "trusted": offered.verdict.status == "known" or offered in trusted,
        "known_fingerprint": entry.key.fingerprint if entry else None,
        "known_from": entry.location if entry else None,
    }
