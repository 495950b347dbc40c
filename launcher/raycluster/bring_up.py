"""From machines that answer SSH to a cluster that is up: facts, checks, environment, Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from launcher.config.cluster import Cluster, LoadedCluster, Node
from launcher.errors import LaunchError, RunBusy
from launcher.hosts.check import Needs, check_hosts
from launcher.hosts.facts import HostFacts, gather_facts
from launcher.hosts.network import Place, choose_places
from launcher.hosts.preflight import Finding
from launcher.provision.apply import apply, gather_all
from launcher.provision.host_lock import host_lock
from launcher.provision.needs import find_needs
from launcher.provision.plan import HostPlan, Need, plan_host
from launcher.raycluster.control import HostState, host_states, start, start_command, stop
from launcher.raycluster.ports import cluster_ports
from launcher.raycluster.spec import WANTED, ClusterSpec, NodeSpec
from launcher.transport.connection import Connection
from launcher.transport.together import on_all


class Watcher(Protocol):
    """How bringing up is shown."""

    def say(self, text: str) -> None: ...

    def sent(self, host: str, what: str, done: int, total: int) -> None: ...

    def fetched(self, name: str, done: int, total: int) -> None: ...


@dataclass
class Stages:
    """Seconds of each stage, in order; `hosts` has those of single hosts."""

    seconds: dict[str, float] = field(default_factory=dict)
    hosts: dict[str, dict[str, float]] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - began, 3)


@dataclass(frozen=True)
class Prepared:
    """What is known and wanted before anything is changed."""

    facts: Mapping[str, HostFacts]
    states: Mapping[str, HostState]
    plans: Mapping[str, HostPlan]
    specs: Mapping[str, ClusterSpec]


def prepare(
    loaded: LoadedCluster,
    nodes: tuple[Node, ...],
    connections: Mapping[str, Connection],
    stages: Stages,
    watcher: Watcher,
) -> Prepared:
    """Facts in, plans out. Raises LaunchError where a check finds an error."""
    cluster = loaded.cluster
    with stages.stage("check"):
        facts = on_all(connections, gather_facts)
        states = host_states(connections, cluster.name)
        places = choose_places(cluster.network.interface, facts)
        if not all(state.is_running for state in states.values()):
            needs_ports = port_needs(cluster, states)
            _refuse(check_hosts(connections, facts, places, needs_ports), watcher)
    with stages.stage("choose"):
        needs = find_needs(nodes, cluster.environment, facts, connections, say=watcher.say)
        plans = {name: plan_host(name, facts[name], need) for name, need in needs.items()}
    return Prepared(facts, states, plans, node_specs(loaded, nodes, facts, places, needs))


def bring_up(
    prepared: Prepared,
    connections: Mapping[str, Connection],
    stages: Stages,
    watcher: Watcher,
    *,
    running: Callable[[], list[str]],
) -> ClusterSpec:
    """Install what is missing, start Ray where it is not up. The head's spec.

    A Ray that runs other code than ours is started anew. `running`: names of the runs at work.
    Raises RunBusy where that would end one, HostError or HostsFailed.
    """
    if any(plan.operations for plan in prepared.plans.values()):
        with stages.stage("gather"):
            gather_all(prepared.plans, progress=watcher.fetched)
        with stages.stage("install"):
            applied = apply(connections, prepared.plans, progress=watcher.sent)
        stages.hosts |= {host: done.seconds for host, done in applied.items()}
    specs = prepared.specs
    first = next(iter(specs.values()))
    stale = any(_is_stale(state, specs[name]) for name, state in prepared.states.items())
    if not stale and all(state.status == "up" for state in prepared.states.values()):
        mark = f"touch .launch/clusters/{first.cluster}/{WANTED}"
        connections[first.head.name].check(mark, step="keep Ray up")  # it may have been idle
        return first
    with stages.stage("Ray"):
        if stale and (names := running()):
            raise RunBusy(
                f"run '{names[0]}' is at work on {first.cluster} with other code or packages than "
                "yours: Ray cannot be started anew",
                fix=f"wait for its end, or: launch stop {first.cluster}/{names[0]}",
            )
        if stale:
            watcher.say("Ray runs another version of the code: starting it anew")
            stop(connections, first.cluster)
        down = {name for name, state in prepared.states.items() if stale or not state.is_running}

        def show(node: str, status: str) -> None:
            if node in down:
                watcher.say(f"{node}: Ray is {status}")

        with host_lock(connections[first.head.name]):  # two clients, one cluster
            start(connections, specs, show)
    return first


def start_commands(prepared: Prepared, node: str) -> list[str]:
    """What `bring_up` would run to start Ray there; nothing where it is up."""
    state, spec = prepared.states[node], prepared.specs[node]
    if state.is_running and not _is_stale(state, spec):
        return []
    folder = f"~/.launch/clusters/{spec.cluster}"
    stops = [f"kill {state.pid}   # Ray runs another version of the code"] * state.is_running
    return [*stops, f"write {folder}/token (0600), {folder}/cluster.json", start_command(spec)]


def port_needs(cluster: Cluster, states: Mapping[str, HostState]) -> dict[str, Needs]:
    """What the cluster's Ray listens on at each host; `states`: of the hosts that were asked."""
    ports = cluster_ports(cluster.name)
    return {
        name: Needs(
            taken=ports.taken(head=name == cluster.head_node.name),
            reached=ports.reached_from_others(head=name == cluster.head_node.name),
            ours=state.status != "down",
        )
        for name, state in states.items()
    }


def node_specs(
    loaded: LoadedCluster,
    nodes: tuple[Node, ...],
    facts: Mapping[str, HostFacts],
    places: Mapping[str, Place],
    needs: Mapping[str, Need],
) -> dict[str, ClusterSpec]:
    """What each node is to know; the head first."""
    cluster = loaded.cluster
    ordered = sorted(nodes, key=lambda node: node.name != cluster.head_node.name)
    described = tuple(
        NodeSpec(
            name=node.name,
            address=places[node.name].address,
            interface=places[node.name].interface,
            cpus=min(node.cpus or facts[node.name].cores, facts[node.name].cores),
            slots=1,
            pool=node.pool,
        )
        for node in ordered
    )
    first = ordered[0].name
    spec = ClusterSpec(
        cluster=cluster.name,
        node=first,
        nodes=described,
        env=needs[first].env,
        code=needs[first].code.key,
        python=needs[first].python.key,
        profile=cluster.network.profile,
        idle_minutes=cluster.idle_minutes,
    )
    return {
        node.name: replace(
            spec, node=node.name, env=needs[node.name].env, python=needs[node.name].python.key
        )
        for node in ordered
    }


def _is_stale(state: HostState, spec: ClusterSpec) -> bool:
    return state.is_running and (state.code, state.env) != (spec.code, spec.env)


def _refuse(findings: list[Finding], watcher: Watcher) -> None:
    errors = [finding for finding in findings if finding.severity == "error"]
    for finding in findings:
        if finding.severity == "warning":
            watcher.say(f"{finding.host}: {finding.message}")
    if errors:
        text = "\n".join(f"{finding.host}: {finding.message}" for finding in errors)
        fixes = "\n".join(dict.fromkeys(f.fix for f in errors if f.fix))
        raise LaunchError(text, fix=fixes or None)
