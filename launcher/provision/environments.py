"""Plan each host's environment on the client: Python, lockfile, code, whether to push wheels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from launcher.config.paths import launch_home
from launcher.errors import LaunchError
from launcher.hosts.gpus import torch_build
from launcher.hosts.platform import Platform
from launcher.provision.code import pack_code
from launcher.provision.host_plan import ROOT, HostEnvironment, has_environment
from launcher.provision.lockfile import Lockfile, hash_key, request_key, resolve_wheels
from launcher.provision.python import choose_pythons
from launcher.provision.requirements import (
    TORCH_INDEX,
    cluster_index_options,
    host_requirements,
    index_options,
    pip_fingerprint,
)
from launcher.ssh.parallel import combine_errors, in_parallel
from launcher.ssh.protocol import Connection
from nanochat.atomic_write import write_atomically

if TYPE_CHECKING:
    from launcher.config.cluster import Environment
    from launcher.config.node import Node
    from launcher.hosts.facts import HostFacts

# How the local version of a fitting torch begins.
BUILD_PREFIXES = {"cpu": "", "cuda": "cu", "rocm": "rocm"}
REACH_SECONDS = 3
# With no Python on the host nothing is known: it is sent what it needs.
REACH_PROGRAM = """\
import socket, sys
for server in sys.argv[1:]:
    host, port = server.rsplit(":", 1)
    socket.create_connection((host, int(port)), SECONDS).close()
print("reached")
"""


def plan_environments(
    nodes: Sequence[Node],
    environment: Environment,
    facts: Mapping[str, HostFacts],
    connections: Mapping[str, Connection],
    *,
    notify: Callable[[str], None] = lambda text: None,
) -> dict[str, HostEnvironment]:
    """Node's name -> its environment, in the order of `nodes`.

    Lockfiles are kept under LAUNCH_HOME/locks: the second time nothing is asked of an index. Hosts
    that lack their environment are asked whether they reach the index themselves.
    Raises LaunchError, HostError, HostsFailed.
    """
    pythons = choose_pythons(environment.python, {node.name: facts[node.name] for node in nodes})
    targets = {
        node.name: Platform(
            facts[node.name].architecture,
            pythons[node.name].minor,
            node.accelerator,
            torch_build(facts[node.name].gpus) if node.accelerator == "cuda" else "",
        )
        for node in nodes
    }
    locks: dict[Platform, Lockfile] = {}
    for target in sorted(set(targets.values()), key=str):
        hosts = [name for name in targets if targets[name] == target]
        first = next(iter(locks.values()), None)
        locks[target] = find_lockfile(target, environment, hosts, facts, connections, first, notify)
    code = pack_code()
    environments = {
        n.name: HostEnvironment(pythons[n.name], locks[targets[n.name]], code) for n in nodes
    }
    return choose_push(environment.push, environments, facts, connections)


def find_lockfile(
    target: Platform,
    environment: Environment,
    hosts: Sequence[str],
    facts: Mapping[str, HostFacts],
    connections: Mapping[str, Connection],
    same_versions_as: Lockfile | None,
    notify: Callable[[str], None],
) -> Lockfile:
    """From LAUNCH_HOME; else the one that all these hosts have installed already; else resolved.

    The second is for a client that never made one: its index may have newer versions by now, and
    that is no reason to install everything again.
    """
    requirements = host_requirements(target)
    request = request_key(target, requirements, cluster_index_options(environment))
    agreed = same_versions_as.key if same_versions_as else ""
    folder = launch_home() / "locks"
    path = folder / f"{request}-{hash_key([pip_fingerprint(), agreed])}.json"
    if path.exists():
        return Lockfile.from_json(path.read_text(encoding="utf-8"))
    lock = None
    if not list(folder.glob(f"{request}-*.json")):
        lock = _installed_lockfile(request, hosts, facts, connections)
    if lock is None:
        notify(f"choosing packages for {target}")
        options = index_options(environment, target)
        lock = resolve_wheels(
            target,
            requirements,
            options,
            request=request,
            hosts=hosts,
            same_versions_as=same_versions_as,
        )
        require_accelerator(lock, hosts)
    write_atomically(path, lock.to_json().encode())
    return lock


def require_accelerator(lock: Lockfile, hosts: Sequence[str]) -> None:
    """Raises LaunchError where this client's index has another build of torch than they need.

    A build says so in its local version; PyPI's own, without one, is for CUDA (on x86_64).
    """
    version, target = lock.wheel("torch").version, lock.target
    accelerator = target.accelerator
    build = version.partition("+")[2] or ("cpu" if lock.target.architecture == "aarch64" else "cu")
    # A plain one is of CUDA 13 too; a driver that is older than that does not run either.
    too_new = target.build == "cu126" and (build == "cu" or build.startswith("cu13"))
    if too_new or not build.startswith(BUILD_PREFIXES[accelerator]):
        reason = "CUDA 12.6 is what its driver can" if too_new else f"accelerator is {accelerator}"
        raise LaunchError(
            f"{', '.join(hosts)}: {reason}, but the torch {version} that pip finds here is another "
            "build",
            fix="set environment.extra_index_url to "
            f"{TORCH_INDEX[target.build or accelerator]} (or to where such a build is)",
        )


def _installed_lockfile(
    request: str,
    hosts: Sequence[str],
    facts: Mapping[str, HostFacts],
    connections: Mapping[str, Connection],
) -> Lockfile | None:
    ready = [{key for key in facts[host].ready if key.startswith("env/")} for host in hosts]
    for key in sorted(set.intersection(*ready)):
        try:
            lock = Lockfile.from_json(
                connections[hosts[0]].read(f"{ROOT}/{key}/lock.json").decode()
            )
        except FileNotFoundError:
            continue
        if lock.request == request:
            return lock
    return None


def choose_push(
    push: str,
    environments: dict[str, HostEnvironment],
    facts: Mapping[str, HostFacts],
    connections: Mapping[str, Connection],
) -> dict[str, HostEnvironment]:
    if push == "never":
        _refuse_local(environments)
    if push == "always":
        return environments
    lacking = {
        name: connections[name]
        for name, environment in environments.items()
        if not has_environment(facts[name], environment)
    }
    reached = {name: True for name in lacking}
    if push == "auto":
        reached, errors = in_parallel(
            lacking,
            lambda connection: reaches_servers(
                connection,
                facts[connection.name],
                index_servers(environments[connection.name].lockfile),
            ),
        )
        if errors:
            raise combine_errors(errors)
    return {
        name: replace(environment, push=not reached.get(name, False))
        for name, environment in environments.items()
    }


def _refuse_local(environments: Mapping[str, HostEnvironment]) -> None:
    for name, environment in environments.items():
        local = [wheel.filename for wheel in environment.lockfile.wheels if wheel.local_path]
        if local:
            raise LaunchError(
                f"environment.push is never, but {name} cannot download {local[0]}: it is in a "
                "folder of this machine",
                fix="set environment.push to auto",
            )


def index_servers(lock: Lockfile) -> list[str]:
    """host:port of every server that its wheels come from."""
    found = set()
    for wheel in lock.wheels:
        url = urlsplit(wheel.url)
        if url.scheme in ("http", "https"):
            found.add(f"{url.hostname}:{url.port or (443 if url.scheme == 'https' else 80)}")
    return sorted(found)


def reaches_servers(connection: Connection, facts: HostFacts, servers: Sequence[str]) -> bool:
    """Whether the host can connect to all of them, each within 3 s."""
    if not facts.pythons or not servers:
        return False
    script = REACH_PROGRAM.replace("SECONDS", str(REACH_SECONDS))
    done = connection.run(
        f"{facts.pythons[0].path} -I - {' '.join(servers)} 2>/dev/null",
        step="does it reach the package index",
        stdin=script.encode(),
    )
    return done.stdout.strip() == "reached"
