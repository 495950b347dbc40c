"""The judgement of what was tried between hosts: ports, paths, and the speed of the links."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from launcher.hosts.links import PairSpeed
from launcher.hosts.network import ClusterAddress
from launcher.hosts.pairs import PairLink, PairResults
from launcher.hosts.preflight import Finding, taken_ports

# Why a port on which the peer did listen is not reached.
DROPPED = "no answer: a firewall drops it"
REJECTED = "a firewall in between rejects it"
OTHER = "another program or host answers there"


def judge_pairs(
    results: PairResults, places: Mapping[str, ClusterAddress], speeds: Sequence[PairSpeed] = ()
) -> Iterator[Finding]:
    """`speeds`: of the links that were measured."""
    for error in results.failed:
        message = error.message.removeprefix(f"{error.host}: ")
        yield Finding("error", error.host, "pair-failed", message, error.fix)
    for name in results.skipped:
        yield Finding(
            "warning", name, "pair-skipped", "without a Python there, its ports are not tried"
        )
    for name, ports in results.taken.items():
        yield taken_ports(name, ports)
    taken = {(name, port) for name, ports in results.taken.items() for port in ports}
    broken: dict[tuple[str, str], list[PairLink]] = defaultdict(list)
    best: dict[tuple[str, str], PairLink] = {}
    for link in results.links:
        pair = link.host, link.peer
        if link.what == "ok":
            best[pair] = min(best.get(pair, link), link, key=lambda each: each.milliseconds)
        elif (link.peer, link.port) not in taken:
            broken[pair].append(link)
    for (host, peer), links in broken.items():
        yield _broken(host, peer, places[host].address, links)
    measured = {(speed.host, speed.peer): speed for speed in speeds}
    for pair, link in best.items():
        if pair not in broken:
            yield _link(link, places, measured.get(pair))


def unbroken_pairs(results: PairResults) -> set[frozenset[str]]:
    """Those whose hosts reach each other on every port that was tried."""
    pairs = {frozenset((link.host, link.peer)) for link in results.links}
    return pairs - {frozenset((x.host, x.peer)) for x in results.links if x.what != "ok"}


def is_transient(finding: Finding) -> bool:
    """Whether another client's check, or the Ray that it starts, may be all that is behind it."""
    between = finding.code in ("pair-port", "pair-ephemeral") and DROPPED not in finding.message
    return finding.code == "port-taken" or between


def judge_unmeasured(results: PairResults, speeds: Sequence[PairSpeed]) -> Iterator[Finding]:
    """Of the pairs whose ports are well."""
    missing = unbroken_pairs(results) - {frozenset((speed.host, speed.peer)) for speed in speeds}
    for host, peer in sorted(tuple(sorted(pair)) for pair in missing):
        message = f"the link to {peer} could not be measured"
        yield Finding("warning", host, "pair-speed", message, "check again", peer=peer)


def judge_addresses(places: Mapping[str, ClusterAddress]) -> Iterator[Finding]:
    """Two names of one machine, or machines that hide behind one address each."""
    owners: dict[str, str] = {}
    for name, place in places.items():
        owner = owners.setdefault(place.address, name)
        if owner != name:
            yield Finding(
                "error",
                name,
                "address",
                f"{place.address} is {owner}'s address too",
                fix="list a machine once; where both have a NAT of their own, name the interface "
                "by which they reach each other: network: {interface: NAME}",
                peer=owner,
            )


def _broken(host: str, peer: str, address: str, links: list[PairLink]) -> Finding:
    """`address`: the host's."""
    fixed = sorted(link.port for link in links if link.fixed)
    what = {link.what for link in links}
    if any("unreachable" in each.lower() or "no route" in each.lower() for each in what):
        return Finding(
            "error",
            host,
            "pair-route",
            f"has no way to {peer}'s address ({', '.join(sorted(what))}): they are in networks "
            "without a route between them",
            fix="name a network that all hosts share: network: {interface: NAME}, or add a route",
            peer=peer,
        )
    dropped = what == {"timeout"}
    how = DROPPED if dropped else ", ".join(sorted(what))
    why = "" if dropped else f": {OTHER if 'other' in what else REJECTED}"
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


def _link(link: PairLink, places: Mapping[str, ClusterAddress], speed: PairSpeed | None) -> Finding:
    here, there = places[link.host], places[link.peer]
    message = f"reaches {link.peer} on every port, {here.interface} to {there.interface}"
    if speed is None:
        message += f", first answer after {link.milliseconds:.2f} ms"
    else:
        gbit_per_second = speed.bytes_per_second * 8 / 1e9
        message += f": round trip {speed.round_trip_ms:.2f} ms, {gbit_per_second:.2f} Gbit/s"
    if link.source in ("", here.address):
        return Finding("ok", link.host, "pair", message, peer=link.peer)
    return Finding(
        "warning",
        link.host,
        "pair-path",
        f"{message}; but its packets leave from {link.source}, not from {here.interface}: two "
        "cards are in one network, or a route leads through the other one",
        fix=f"take one of the cards out of that network, or give {link.peer} a route through "
        f"{here.interface}: ip route replace {there.address} dev {here.interface}",
        peer=link.peer,
    )
