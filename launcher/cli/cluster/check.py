"""launch cluster check: what would go wrong on these hosts, each finding with what mends it."""

from __future__ import annotations

import click

from launcher.cli.options import json_option
from launcher.cli.render.hosts import print_findings
from launcher.cli.render.table import print_json
from launcher.config.cluster_file import load_cluster
from launcher.operations.check_cluster import check_cluster


@click.command()
@click.argument("cluster")
@click.option("--pool", metavar="P", help="The hosts of one pool only.")
@json_option
def command(cluster: str, pool: str | None, as_json: bool) -> None:
    """Look at every host and try TCP between every pair; nothing is changed."""
    findings = check_cluster(load_cluster(cluster), pool)
    has_errors = any(finding.severity == "error" for finding in findings)
    if as_json:
        print_json({"ok": not has_errors, "findings": [finding.as_json() for finding in findings]})
    else:
        print_findings(findings)
    if has_errors:
        raise click.exceptions.Exit(1)
