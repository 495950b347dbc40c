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

from launcher.hosts.facts import HostFacts
from launcher.transport.connection import Connection
from launcher.transport.together import on_all

TRY_SECONDS = 3.0  # a connection that takes longer is one that a firewall drops
EPHEMERAL = range(40_000, 60_000)  # inside what Linux hands out (32768 to 60999)

# argv[1]: JSON {nonce, seconds, address, ports, peers: {name: {address, ports}}}.
# Prints {"taken": [port], "peers": {name: {port: [what, milliseconds]}}}.
PROGRAM = r"""
import json, select, socket, sys, threading, time
job = json.loads(sys.argv[1])
nonce, end = job["nonce"].encode(), time.monotonic() + job["seconds"]
taken, servers = [], []
for port in job["ports"]:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((job["address"], port)); server.listen(64); servers.append(server)
    except OSError:
        taken.append(port)
awaited = len(servers) * len(job["peers"])
def serve():
    global awaited
    while awaited > 0 and time.monotonic() < end + 1:
        for server in select.select(servers, [], [], 0.1)[0] if servers else ():
            client = server.accept()[0]
            try:
                client.sendall(nonce); client.settimeout(1)
                if client.recv(2) == b"ok": awaited -= 1
            except OSError: pass
            client.close()
def call(address, port):
    while True:
        began = time.monotonic()
        try:
            with socket.create_connection((address, port), max(0.05, end - began)) as client:
                took = time.monotonic() - began
                client.settimeout(max(0.05, end - began)); said = client.recv(64)
                client.sendall(b"ok")
            return ["ok" if said == nonce else "other", round(took * 1000, 2)]
        except TimeoutError: what = "timeout"
        except ConnectionRefusedError: what = "refused"
        except OSError as error: what = error.strerror or str(error)
        if time.monotonic() > end - 0.1: return [what, 0]
        time.sleep(0.1)
found = {name: {} for name in job["peers"]}
def reach(name, address, port): found[name][str(port)] = call(address, port)
threads = [threading.Thread(target=serve)] + [
    threading.Thread(target=reach, args=(name, peer["address"], port))
    for name, peer in job["peers"].items() for port in peer["ports"]]
[t.start() for t in threads]; [t.join() for t in threads]
print(json.dumps({"taken": taken, "peers": found}))
"""


@dataclass(frozen=True)
class Link:
    """From one host to a port of another. `what`: ok, timeout, refused, other (something else
    listens there), or the system's words. `fixed`: a port of ours, else an ephemeral one."""

    host: str
    peer: str
    port: int
    what: str
    milliseconds: float
    fixed: bool


@dataclass(frozen=True)
class PairResults:
    """`taken`: ports of ours that something else on the host holds. `skipped`: hosts without a
    Python to try it with."""

    links: tuple[Link, ...]
    taken: Mapping[str, tuple[int, ...]]
    skipped: tuple[str, ...]


def try_pairs(
    connections: Mapping[str, Connection],
    facts: Mapping[str, HostFacts],
    addresses: Mapping[str, str],
    ports: Mapping[str, tuple[int, ...]],
) -> PairResults:
    """`ports`: of each host, those that others connect to and that nothing of ours holds yet.

    An ephemeral port is tried besides. Takes 0.5 s, or TRY_SECONDS where something is in the way.
    """
    able = {name: host for name, host in facts.items() if host.pythons}
    nonce = secrets.token_hex(8)
    chosen = {name: (*ports[name], _ephemeral(facts[name])) for name in able}

    def one(connection: Connection) -> tuple[tuple[int, ...], list[Link]]:
        name = connection.name
        job = {
            "nonce": nonce,
            "seconds": TRY_SECONDS,
            "address": addresses[name],
            "ports": chosen[name],
            "peers": {
                peer: {"address": addresses[peer], "ports": chosen[peer]}
                for peer in able
                if peer != name
            },
        }
        python = shlex.quote(able[name].pythons[0].path)
        answer = json.loads(
            connection.check(
                f"{python} -I - {shlex.quote(json.dumps(job))}",
                step="try the ports between hosts",
                stdin=PROGRAM.encode(),
                timeout=TRY_SECONDS + 15,
            )
        )
        links = [
            Link(name, peer, int(port), what, milliseconds, int(port) in ports[peer])
            for peer, found in answer["peers"].items()
            for port, (what, milliseconds) in found.items()
        ]
        return tuple(answer["taken"]), links

    answers = on_all({name: connections[name] for name in able}, one)
    return PairResults(
        links=tuple(link for _, links in answers.values() for link in links),
        taken={name: taken for name, (taken, _) in answers.items() if taken},
        skipped=tuple(name for name in facts if name not in able),
    )


def _ephemeral(host: HostFacts) -> int:
    return random.choice([port for port in EPHEMERAL if port not in host.listening_ports])
