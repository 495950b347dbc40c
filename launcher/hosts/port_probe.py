"""TCP between every pair of hosts, both ways, on the ports that a run will use.

Every host runs one small program at the same time, which listens on its own ports and connects to
everybody else's: hosts need no SSH between them. It ends as soon as all is known.
"""

from __future__ import annotations

import json
import random
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from launcher.errors import HostError
from launcher.hosts.facts import HostFacts
from launcher.ssh.parallel import in_parallel
from launcher.ssh.protocol import Connection

# A connection that takes longer is one that a firewall drops: Linux asks at 0 and 1 s, then at 3.
TRY_SECONDS = 2.5
EPHEMERAL_TRIED = 3  # ports of each host, one from each third of its range

# argv[1]: JSON {nonce, name, seconds, address, ports, peers: {name: {address, ports}}}.
# Prints {"taken": [port], "peers": {name: {port: [outcome, milliseconds, address it left from]}}}.
PAIR_PROGRAM = r"""
import json, select, socket, sys, threading, time
job = json.loads(sys.argv[1])
end = time.monotonic() + job["seconds"]
def answer(name): return (job["nonce"] + " " + name).encode()
taken, servers = [], []
for port in job["ports"]:
    while True:
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((job["address"], port)); server.listen(64)
            server.setblocking(False); servers.append(server); break
        except OSError:  # another client's check is over soon
            server.close()
            if time.monotonic() > end - job["seconds"] / 2: taken.append(port); break
            time.sleep(0.1)
awaited = len(servers) * len(job["peers"])
def serve():
    global awaited
    while awaited > 0 and time.monotonic() < end + 1:
        for server in select.select(servers, [], [], 0.1)[0] if servers else ():
            try:
                with server.accept()[0] as client:
                    client.settimeout(1); client.sendall(answer(job["name"]))
                    if client.recv(2) == b"ok": awaited -= 1
            except OSError: pass
def call(name, address, port):
    outcome = ""
    while True:
        started = time.monotonic()
        try:
            with socket.create_connection((address, port), max(0.05, end - started)) as client:
                took, source = time.monotonic() - started, client.getsockname()[0]
                client.settimeout(max(0.05, end - started)); received = client.recv(256)
                if received == answer(name):
                    client.sendall(b"ok"); return ["ok", round(took * 1000, 2), source]
            outcome = "other"  # maybe another client's check
        # A firewall's refusals are few a second: silence after one says no more than it did.
        except TimeoutError: outcome = outcome or "timeout"
        except ConnectionRefusedError: outcome = "refused"
        except OSError as error: outcome = error.strerror or str(error)
        if time.monotonic() > end - 0.1: return [outcome, 0, ""]
        time.sleep(0.1)
found = {name: {} for name in job["peers"]}
def reach(name, address, port): found[name][str(port)] = call(name, address, port)
threads = [threading.Thread(target=serve)] + [
    threading.Thread(target=reach, args=(name, peer["address"], port))
    for name, peer in job["peers"].items() for port in peer["ports"]]
[t.start() for t in threads]; [t.join() for t in threads]
print(json.dumps({"taken": taken, "peers": found}))
"""


@dataclass(frozen=True)
class PairLink:
    """A connection from one host to a port of another."""

    host: str
    peer: str
    port: int
    outcome: str
    """ok, timeout, refused, other (another program or host answers), or the system's error."""
    milliseconds: float
    is_cluster_port: bool
    """Whether it is a port of the cluster, else an ephemeral one."""
    source: str = ""
    """The address that the packets left from."""


@dataclass(frozen=True)
class PairResults:
    """What was tried between all pairs of hosts."""

    links: tuple[PairLink, ...]
    occupied_ports: Mapping[str, tuple[int, ...]]
    """By host, ports of the cluster that something else there holds."""
    skipped: tuple[str, ...]
    """Hosts without a Python to try it with."""
    failed: tuple[HostError, ...] = ()
    """Why a host could not try it."""


def try_pairs(
    connections: Mapping[str, Connection],
    facts: Mapping[str, HostFacts],
    addresses: Mapping[str, str],
    ports: Mapping[str, tuple[int, ...]],
) -> PairResults:
    """`ports`: of each host, those that others connect to and that nothing of ours holds yet.

    Some ephemeral ports are tried besides. Takes 0.3 s, or TRY_SECONDS and 1 s where something is
    in the way, more where a host is slow to begin anything.
    """
    seconds = TRY_SECONDS + max((host.answer_seconds for host in facts.values()), default=0.0)
    with_python = {name: host.any_python for name, host in facts.items() if host.any_python}
    nonce = secrets.token_hex(8)
    chosen = {name: (*ports[name], *_ephemeral(facts[name])) for name in with_python}

    def try_from(connection: Connection) -> tuple[tuple[int, ...], list[PairLink]]:
        name = connection.name
        job = {
            "nonce": nonce,
            "name": name,
            "seconds": seconds,
            "address": addresses[name],
            "ports": chosen[name],
            "peers": {
                peer: {"address": addresses[peer], "ports": chosen[peer]}
                for peer in with_python
                if peer != name
            },
        }
        output = connection.check(
            f"{shlex.quote(with_python[name])} -I - {shlex.quote(json.dumps(job))}",
            step="try the ports between hosts",
            stdin=PAIR_PROGRAM.encode(),
            timeout=seconds + 15,
        )
        answer = json.loads(output.splitlines()[-1])  # before it: what the login shell says
        links = [
            PairLink(name, peer, int(port), outcome, milliseconds, int(port) in ports[peer], source)
            for peer, found in answer["peers"].items()
            for port, (outcome, milliseconds, source) in found.items()
        ]
        return tuple(answer["taken"]), links

    answers, failed = in_parallel({name: connections[name] for name in with_python}, try_from)
    # Whoever could not try did not listen either; an ephemeral port that is in use says nothing.
    not_listening = {(name, port) for name, (taken, _) in answers.items() for port in taken}
    return PairResults(
        links=tuple(
            link
            for _, links in answers.values()
            for link in links
            if link.peer in answers
            and (link.is_cluster_port or (link.peer, link.port) not in not_listening)
        ),
        occupied_ports={
            name: occupied
            for name, (taken, _) in answers.items()
            if (occupied := tuple(port for port in taken if port in ports[name]))
        },
        skipped=tuple(name for name in facts if name not in with_python),
        failed=tuple(failed),
    )


def _ephemeral(host: HostFacts) -> list[int]:
    first, last = host.ephemeral_ports
    free = [port for port in range(first, last + 1) if port not in host.listening_ports]
    third = len(free) // EPHEMERAL_TRIED
    return [random.choice(free[i * third : (i + 1) * third]) for i in range(EPHEMERAL_TRIED)]
