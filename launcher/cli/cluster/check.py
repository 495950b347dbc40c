"""launch cluster check: what would go wrong on these hosts, each finding with what mends it."""

from __future__ import annotations

import click

from launcher.cli.options import json_option
from launcher.cli.render.table import print_json
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import require_addresses, require_pool
from launcher.config.subcluster import select_pool
from launcher.hosts.preflight import Finding
from launcher.operations.check_cluster import check_cluster

MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}


@click.command()
@click.argument("cluster")
@click.option("--pool", metavar="P", help="The hosts of one pool only.")
@json_option
def command(cluster: str, pool: str | None, as_json: bool) -> None:
    """Look at every host and try TCP between every pair; nothing is changed."""
    loaded, pool = select_pool(load_cluster(cluster), pool)
    nodes = require_pool(loaded, pool)
    require_addresses(loaded, nodes)
    findings = check_cluster(loaded, nodes)
    wrong = any(finding.severity == "error" for finding in findings)
    if as_json:
        print_json({"ok": not wrong, "findings": [finding.as_json() for finding in findings]})
    else:
        _print(findings)
    if wrong:
        raise click.exceptions.Exit(1)


def _print(findings: list[Finding]) -> None:
    host = ""
    for finding in findings:
        if finding.host != host:
            host = finding.host
            click.secho(host, bold=True)
        mark, colour = MARKS[finding.severity]
        click.echo(f"  {click.style(mark, fg=colour)} {finding.code:<18}{finding.message}")
        if finding.fix and finding.severity != "ok":
            click.echo(f"      fix: {finding.fix}")
