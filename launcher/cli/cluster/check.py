"""launch cluster check: what would go wrong on these hosts, each finding with what mends it."""

from __future__ import annotations

import click

from launcher.cli.options import json_option
from launcher.cli.render.table import print_json
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import LoadedCluster, require_addresses, require_pool
from launcher.config.node import Node
from launcher.config.subcluster import select_pool
from launcher.errors import HostError
from launcher.hosts.check import check_hosts
from launcher.hosts.facts import gather_facts
from launcher.hosts.network import ClusterAddress, choose_addresses
from launcher.hosts.preflight import Finding
from launcher.raycluster.control import host_state
from launcher.raycluster.probe import host_needs
from launcher.ssh.parallel import close_all, connect_each, in_parallel

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
    findings = collect_findings(loaded, nodes)
    wrong = any(finding.severity == "error" for finding in findings)
    if as_json:
        print_json({"ok": not wrong, "findings": [finding.as_json() for finding in findings]})
    else:
        _print(findings)
    if wrong:
        raise click.exceptions.Exit(1)


def collect_findings(loaded: LoadedCluster, nodes: tuple[Node, ...]) -> list[Finding]:
    """Hosts that cannot be reached are findings too."""
    connections, errors = connect_each(loaded, nodes)
    try:
        states, lost = in_parallel(connections, lambda each: host_state(each, loaded.cluster.name))
        answered = {name: connections[name] for name in states}
        facts, gone = in_parallel(answered, gather_facts)
        states = {name: states[name] for name in facts}
        known = {name: connections[name] for name in facts}
        findings = [_failed(error) for error in [*errors, *lost, *gone]]
        places: dict[str, ClusterAddress] = {}
        try:
            places = choose_addresses(loaded.cluster.network.interface, facts)
        except HostError as error:
            findings.append(_failed(error, "address"))
        findings += [Finding("ok", name, "ssh", f"{known[name].address} answers") for name in facts]
        findings += check_hosts(
            known, facts, places, host_needs(loaded.cluster, states), speeds=True
        )
    finally:
        close_all(connections)
    order = [node.name for node in nodes]
    return sorted(findings, key=lambda finding: order.index(finding.host))


def _failed(error: HostError, code: str = "ssh") -> Finding:
    message = error.message.removeprefix(f"{error.host}: ")
    return Finding("error", error.host, code, message, error.fix)


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
