"""Round trip and throughput between every two hosts, over the addresses that gloo will use.

Every host runs one small program. They meet in rounds, as players of a round robin do, so that no
host has two partners at a time and a pair has its cables for itself.
"""

from __future__ import annotations

import json
import random
import secrets
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from launcher.hosts.facts import HostFacts
from launcher.ssh.parallel import in_parallel
from launcher.ssh.protocol import Connection

STREAM_SECONDS = 0.25  # 0.3 MB at 10 Mbit/s, 300 MB at 10 Gbit/s
MEETING_SECONDS = 8.0  # of one pair at the most: a link of 2 Mbit/s needs as long
CALL_SECONDS = 5.0  # until the other one must be there, besides what the slowest takes to begin

# argv[1]: JSON {nonce, name, address, port, seconds, patience, stream, rounds}, a round {peer,
# address, port, calls}.
# Prints {peer: {trip_ms, received_bytes_per_second}}; `trip_ms` is measured by the one who calls.
LINK_PROGRAM = r"""
import json, socket, statistics, sys, time
job = json.loads(sys.argv[1])
end, block = time.monotonic() + job["seconds"], 1 << 16
call_end = end
def left(): return max(0.05, min(end, call_end) - time.monotonic())
def exactly(line, count):
    data, view, had = bytearray(count), None, 0
    view = memoryview(data)
    while had < count:
        got = line.recv_into(view[had:])
        if not got: raise OSError("hung up")
        had += got
    return data
server = socket.create_server((job["address"], job["port"]))
early = {}
def hello(name): return (job["nonce"] + name).ljust(64).encode()[:64]
def call(meeting):
    while True:
        try:
            line = socket.create_connection((meeting["address"], meeting["port"]), left()); break
        except ConnectionRefusedError:
            if time.monotonic() > min(end, call_end): raise
            time.sleep(0.02)
    line.settimeout(left()); line.sendall(hello(job["name"]))
    return line
def take(meeting):
    wanted = hello(meeting["peer"])
    while wanted not in early:
        server.settimeout(left())
        line = server.accept()[0]; line.settimeout(left())
        early[bytes(exactly(line, 64))] = line
    return early.pop(wanted)
def ping(line):
    trips = []
    for _ in range(21):
        started = time.perf_counter(); line.sendall(b"?"); exactly(line, 1)
        trips.append(time.perf_counter() - started)
    return round(1000 * statistics.median(trips), 3)
def pong(line):
    for _ in range(21): exactly(line, 1); line.sendall(b"!")
def send(line):
    started = time.monotonic(); line.sendall(b"+" * block)
    while time.monotonic() < started + job["stream"]: line.sendall(b"+" * block)
    line.sendall(b"." * block)
def receive(line):
    total, last = 0, exactly(line, block)
    started = time.perf_counter()
    while last[0] == 43: last = exactly(line, block); total += block
    return round(total / (time.perf_counter() - started))
found = {}
for meeting in job["rounds"]:
    try:
        call_end = time.monotonic() + job["patience"]
        with (call if meeting["calls"] else take)(meeting) as line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # What waits in buffers at the end of a stream takes time on a slow link.
            line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 19)
            if meeting["calls"]:
                trip = ping(line); send(line); rate = receive(line); exactly(line, 1)
            else:
                pong(line); trip, rate = None, receive(line); send(line); line.sendall(b"!")
        found[meeting["peer"]] = {"trip_ms": trip, "received_bytes_per_second": rate}
    except OSError: pass
print(json.dumps(found))
"""


@dataclass(frozen=True)
class PairSpeed:
    """From one host to another."""

    host: str
    peer: str
    round_trip_ms: float
    bytes_per_second: float


def measure_links(
    connections: Mapping[str, Connection],
    facts: Mapping[str, HostFacts],
    addresses: Mapping[str, str],
    pairs: Collection[frozenset[str]],
) -> tuple[PairSpeed, ...]:
    """Of these pairs, each way. Takes 0.6 s a round, of which there are as many as hosts; those
    that went wrong are left out."""
    names = [name for name in connections if facts[name].any_python]
    rounds = round_robin(names)
    nonce = secrets.token_hex(8)
    ports = {name: _free_port(facts[name]) for name in names}
    slowest = max((facts[name].answer_seconds for name in names), default=0.0)
    seconds = MEETING_SECONDS * len(rounds) + slowest
    patience = MEETING_SECONDS + CALL_SECONDS + slowest

    def measure(connection: Connection) -> dict[str, dict[str, float]]:
        name = connection.name
        meetings = [
            {
                "peer": peer,
                "address": addresses[peer],
                "port": ports[peer],
                "calls": names.index(name) < names.index(peer),
            }
            for peer in (round_[name] for round_ in rounds if name in round_)
            if frozenset((name, peer)) in pairs
        ]
        job = {
            "nonce": nonce, "name": name, "address": addresses[name], "port": ports[name],
            "seconds": seconds, "patience": patience, "stream": STREAM_SECONDS, "rounds": meetings,
        }  # fmt: skip
        output = connection.check(
            f"{shlex.quote(facts[name].any_python or '')} -I - {shlex.quote(json.dumps(job))}",
            step="measure the links between hosts",
            stdin=LINK_PROGRAM.encode(),
            timeout=seconds + 15,
        )
        answer: dict[str, dict[str, float]] = json.loads(output.splitlines()[-1])
        return answer

    if not pairs:
        return ()
    answers, _ = in_parallel({name: connections[name] for name in names}, measure)
    speeds = []
    for receiver, found in answers.items():
        for sender, result in found.items():
            trip = result["trip_ms"] or answers.get(sender, {}).get(receiver, {}).get("trip_ms")
            if trip is not None:
                rate = result["received_bytes_per_second"]
                speeds.append(PairSpeed(sender, receiver, trip, rate))
    return tuple(speeds)


def round_robin(names: Sequence[str]) -> list[dict[str, str]]:
    """Rounds in which everybody meets everybody once: of each round, who meets whom. By the circle
    method: the first one stays, the others move on by one seat."""
    circle: list[str | None] = [*names, *([None] if len(names) % 2 else [])]
    rounds = []
    for _ in range(len(circle) - 1):
        half = len(circle) // 2
        pairs = zip(circle[:half], reversed(circle[half:]), strict=True)
        met = [(one, two) for one, two in pairs if one is not None and two is not None]
        rounds.append(dict(met) | {two: one for one, two in met})
        circle = [circle[0], circle[-1], *circle[1:-1]]
    return rounds


def _free_port(host: HostFacts) -> int:
    first, last = host.ephemeral_ports
    free = [port for port in range(first, last + 1) if port not in host.listening_ports]
    return random.choice(free)
