"""The judgement of what was tried between hosts: ports, paths, and the speed of the links."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from launcher.hosts.cluster_addresses import ClusterAddress
from launcher.hosts.link_speed import PairSpeed
from launcher.hosts.port_probe import PairLink, PairResults
from launcher.hosts.preflight import Finding, taken_ports_finding

# Why a port on which the peer did listen is not reached.
DROPPED = "no answer: a firewall drops it"
REJECTED = "a firewall in between rejects it"
OTHER_LISTENER = "another program or host answers there"


def judge_pairs(
    results: PairResults, addresses: Mapping[str, ClusterAddress], speeds: Sequence[PairSpeed] = ()
) -> Iterator[Finding]:
    """`speeds`: of the links that were measured."""
    for error in results.failed:
        message = error.message.removeprefix(f"{error.host}: ")
        yield Finding("error", error.host, "pair-failed", message, error.fix)
    for name in results.skipped:
        yield Finding(
            "warning", name, "pair-skipped", "without a Python there, its ports are not tried"
        )
    for name, ports in results.occupied_ports.items():
        yield taken_ports_finding(name, ports)
    taken = {(name, port) for name, ports in results.occupied_ports.items() for port in ports}
    broken: dict[tuple[str, str], list[PairLink]] = defaultdict(list)
    best: dict[tuple[str, str], PairLink] = {}
    for link in results.links:
        pair = link.host, link.peer
        if link.outcome == "ok":
            best[pair] = min(best.get(pair, link), link, key=lambda measured: measured.milliseconds)
        elif (link.peer, link.port) not in taken:
            broken[pair].append(link)
    for (host, peer), links in broken.items():
        yield _broken_pair(host, peer, addresses[host].address, links)
    measured = {(speed.host, speed.peer): speed for speed in speeds}
    for pair, link in best.items():
        if pair not in broken:
            yield _working_pair(link, addresses, measured.get(pair))


def working_pairs(results: PairResults) -> set[frozenset[str]]:
    """Those whose hosts reach each other on every port that was tried."""
    pairs = {frozenset((link.host, link.peer)) for link in results.links}
    return pairs - {frozenset((x.host, x.peer)) for x in results.links if x.outcome != "ok"}


def is_transient(finding: Finding) -> bool:
    """Whether another client's check, or the Ray that it starts, may be all that is behind it."""
    between = finding.code in ("pair-port", "pair-ephemeral") and DROPPED not in finding.message
    return finding.code == "port-taken" or between


def judge_unmeasured(results: PairResults, speeds: Sequence[PairSpeed]) -> Iterator[Finding]:
    """Pairs whose ports all work, but whose link gave no speed."""
    missing = working_pairs(results) - {frozenset((speed.host, speed.peer)) for speed in speeds}
    for host, peer in sorted(tuple(sorted(pair)) for pair in missing):
        message = f"the link to {peer} could not be measured"
        yield Finding("warning", host, "pair-speed", message, "check again", peer=peer)


def judge_addresses(addresses: Mapping[str, ClusterAddress]) -> Iterator[Finding]:
    """Two names of one machine, or machines that hide behind one address each."""
    owners: dict[str, str] = {}
    for name, address in addresses.items():
        owner = owners.setdefault(address.address, name)
        if owner != name:
            yield Finding(
                "error",
                name,
                "address",
                f"{address.address} is {owner}'s address too",
                fix="list a machine once; where both have a NAT of their own, name the interface "
                "by which they reach each other: network: {interface: NAME}",
                peer=owner,
            )


def _broken_pair(host: str, peer: str, address: str, links: list[PairLink]) -> Finding:
    """`address`: the host's."""
    fixed = sorted(link.port for link in links if link.is_cluster_port)
    outcomes = {link.outcome for link in links}
    if any("unreachable" in text.lower() or "no route" in text.lower() for text in outcomes):
        return Finding(
            "error",
            host,
            "pair-route",
            f"has no way to {peer}'s address ({', '.join(sorted(outcomes))}): they are in networks "
            "without a route between them",
            fix="name a network that all hosts share: network: {interface: NAME}, or add a route",
            peer=peer,
        )
    dropped = outcomes == {"timeout"}
    how = DROPPED if dropped else ", ".join(sorted(outcomes))
    why = "" if dropped else f": {OTHER_LISTENER if 'other' in outcomes else REJECTED}"
    where = "an ephemeral port"
    if fixed:
        where = f"port{'s' * (len(fixed) > 1)} {', '.join(map(str, fixed))}"
    if fixed and len(fixed) < len(links):
        where += " and an ephemeral one"
    return Finding(
        "error",
        host,
        "pair-port" if fixed else "pair-ephemeral",
        f"cannot reach {peer} on {where} ({how}){why}",
        fix=f"on {peer}, allow all TCP from {host} (Ray needs the ports of the cluster, gloo "
        f"ephemeral ones): sudo ufw allow from {address}   or: sudo firewall-cmd --permanent "
        f"--zone=trusted --add-source={address} && sudo firewall-cmd --reload",
        peer=peer,
    )


def _working_pair(
    link: PairLink, addresses: Mapping[str, ClusterAddress], speed: PairSpeed | None
) -> Finding:
    local, remote = addresses[link.host], addresses[link.peer]
    message = f"reaches {link.peer} on every port, {local.interface} to {remote.interface}"
    if speed is None:
        message += f", first answer after {link.milliseconds:.2f} ms"
    else:
        gbit_per_second = speed.bytes_per_second * 8 / 1e9
        message += f": round trip {speed.round_trip_ms:.2f} ms, {gbit_per_second:.2f} Gbit/s"
    if link.source in ("", local.address):
        return Finding("ok", link.host, "pair", message, peer=link.peer)
    return Finding(
        "warning",
        link.host,
        "pair-path",
        f"{message}; but its packets leave from {link.source}, not from {local.interface}: two "
        "cards are in one network, or a route leads through the other one",
        fix=f"take one of the cards out of that network, or give {link.peer} a route through "
        f"{local.interface}: ip route replace {remote.address} dev {local.interface}",
        peer=link.peer,
    )
