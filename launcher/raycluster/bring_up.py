"""From machines that answer SSH to a cluster that is up: facts, checks, environment, Ray."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from launcher.config.loaded_cluster import LoadedCluster
from launcher.config.node import Node
from launcher.errors import HostError, HostsFailed, LaunchError, RunBusy
from launcher.hosts.facts import HostFacts
from launcher.hosts.gpu_preflight import VENDOR_BY_ACCELERATOR
from launcher.hosts.network import ClusterAddress
from launcher.hosts.preflight import Finding
from launcher.provision.apply import apply_plans, fetch_all_wheels
from launcher.provision.client_lock import client_lock, named
from launcher.provision.environments import plan_environments
from launcher.provision.host_plan import HostEnvironment, HostPlan, plan_host
from launcher.raycluster import boot_hook
from launcher.raycluster.control import (
    HostState,
    active_runs,
    host_states,
    start,
    start_script,
    stop,
)
from launcher.raycluster.observer import BringUpObserver
from launcher.raycluster.probe import probe_cluster
from launcher.raycluster.spec import WANTED, ClusterSpec, cluster_folder
from launcher.runs.node import RunNode
from launcher.ssh.protocol import Connection


@dataclass
class StageTimes:
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
class BringUpPlan:
    """What is known and wanted before anything is changed. `gone`: nodes of the Ray that is up
    which the file has no more; their slots would still be taken. `wrong`: why Ray cannot be started
    on all hosts; those that are well have plans nevertheless, and no host a spec."""

    facts: Mapping[str, HostFacts]
    states: Mapping[str, HostState]
    plans: Mapping[str, HostPlan]
    specs: Mapping[str, ClusterSpec]
    gone: Sequence[str]
    wrong: LaunchError | None = None

    def is_stale(self, states: Mapping[str, HostState]) -> bool:
        """Whether a Ray is up that must begin anew to be what is wanted."""
        running = {name: state for name, state in states.items() if state.is_running}
        return bool(self.gone) or any(
            state.key != self.specs[name].key for name, state in running.items()
        )


def plan_bring_up(
    loaded: LoadedCluster,
    nodes: tuple[Node, ...],
    connections: Mapping[str, Connection],
    stages: StageTimes,
    watcher: BringUpObserver,
    unreached: Sequence[HostError] = (),
) -> BringUpPlan:
    """Facts in, plans out. One host that is not well keeps no other from getting ready.

    `unreached`: why there is no connection to the other nodes. Raises LaunchError where nothing
    can be planned.
    """
    cluster = loaded.cluster
    with stages.stage("check"):
        found = probe_cluster(loaded, connections, unreached)
    errors, findings, facts = found.errors, found.findings, found.facts
    wrong = _judge(errors, findings, watcher)
    unwell = {each.host for each in findings if each.severity == "error" and not each.peer}
    unwell |= {error.host for error in errors}
    well = tuple(node for node in nodes if node.name in facts and node.name not in unwell)
    if wrong is not None and not well:
        raise wrong
    with stages.stage("choose"):
        needs = plan_environments(
            well, cluster.environment, facts, found.answering, say=watcher.say
        )
        plans = {name: plan_host(name, facts[name], need) for name, need in needs.items()}
    if wrong is not None:
        return BringUpPlan(facts, found.states, plans, {}, [], wrong)
    specs = node_specs(loaded, nodes, facts, found.places, needs)
    names = {node.name for node in cluster.nodes}
    before = found.running.nodes if found.running else ()
    gone = [node.name for node in before if node.name not in names]
    return BringUpPlan(facts, found.states, plans, specs, gone)


def bring_up(
    prepared: BringUpPlan,
    connections: Mapping[str, Connection],
    stages: StageTimes,
    watcher: BringUpObserver,
) -> ClusterSpec:
    """Install what is missing, start Ray where it is not up. The head's spec.

    A Ray of other code or settings than ours, or of another head, is started anew. Raises RunBusy
    where that would end a run; HostError, HostsFailed or what is wrong with a host once all others
    are ready.
    """
    _install(prepared, connections, stages, watcher)
    first = next(iter(prepared.specs.values()))
    head = connections[first.head.name]
    if _is_up(prepared, prepared.states):
        mark = f"touch {cluster_folder(first.cluster)}/{WANTED}"
        head.check(mark, step="keep Ray up")  # it may have been idle
        return first

    with (
        stages.stage("Ray"),
        client_lock(head, notify=named(head, watcher.say)),
    ):
        states = host_states(connections, first.cluster)  # another client may have been here since
        if not _is_up(prepared, states):
            _start(prepared, connections, states, watcher)
    return first


def _install(
    prepared: BringUpPlan,
    connections: Mapping[str, Connection],
    stages: StageTimes,
    watcher: BringUpObserver,
) -> None:
    ready = list(prepared.plans)
    wrong = prepared.wrong
    try:
        if any(plan.operations for plan in prepared.plans.values()):
            with stages.stage("gather"):
                fetch_all_wheels(prepared.plans, progress=watcher.fetched)
            with stages.stage("install"):
                applied = apply_plans(connections, prepared.plans, progress=watcher.sent)
            stages.hosts |= {host: done.seconds for host, done in applied.items()}
    except (HostError, HostsFailed) as error:
        failed = error.errors if isinstance(error, HostsFailed) else (error,)
        ready = [name for name in ready if name not in {each.host for each in failed}]
        wrong = error if wrong is None else _together([wrong, error])
    if wrong is not None:
        if ready:
            watcher.say(f"ready: {', '.join(ready)}; the same command goes on from there")
        raise wrong


def _start(
    prepared: BringUpPlan,
    connections: Mapping[str, Connection],
    states: Mapping[str, HostState],
    watcher: BringUpObserver,
) -> None:
    first = next(iter(prepared.specs.values()))
    stale = prepared.is_stale(states)
    if stale or not states[first.head.name].is_running:
        up = {name: host for name, host in connections.items() if states[name].status != "down"}
        if names := active_runs(up, first.cluster):
            raise RunBusy(
                f"run '{names[0]}' is at work on {first.cluster}, and Ray would have to be started "
                "anew: your code, packages or cluster file differ from what it runs with",
                fix=f"wait for its end, or: launch stop {first.cluster}/{names[0]}",
            )
        if stale:
            watcher.say("Ray runs with other code or settings: starting it anew")
        stop(connections, first.cluster)
        states = {}

    def show(node: str, status: str) -> None:
        if not (node in states and states[node].is_running):
            watcher.say(f"{node}: Ray is {status}")

    for node, hook in start(connections, prepared.specs, show).items():
        facts = prepared.facts[node]
        if facts.kills_user_processes and hook != boot_hook.SYSTEMD:
            user = facts.user
            watcher.say(
                f"{node}: KillUserProcesses=yes ends Ray there when this command ends its login; "
                f"fix: sudo loginctl enable-linger {user}, then down and up"
            )
        elif hook == boot_hook.NONE:
            watcher.say(
                f"{node}: nothing can start Ray after a reboot: it rejoins at the next `up`"
            )


def _is_up(prepared: BringUpPlan, states: Mapping[str, HostState]) -> bool:
    every = all(state.status == "up" for state in states.values())
    return every and not prepared.is_stale(states)


def start_commands(prepared: BringUpPlan, node: str) -> list[str]:
    """What `bring_up` would run to start Ray there; nothing where it is up."""
    state, spec = prepared.states[node], prepared.specs[node]
    stale = prepared.is_stale(prepared.states)
    if state.is_running and not stale:
        return []
    folder = f"~/{cluster_folder(spec.cluster)}"
    stops = [f"kill {state.pid}   # Ray runs with other code or settings"] * state.is_running
    return [
        *stops,
        f"write {folder}/token (0600), {folder}/cluster.json",
        f"write ~/{boot_hook.start_file(spec.cluster)}\n{start_script(spec)}".rstrip(),
        boot_hook.install_and_start(spec.cluster),
    ]


def node_specs(
    loaded: LoadedCluster,
    nodes: tuple[Node, ...],
    facts: Mapping[str, HostFacts],
    places: Mapping[str, ClusterAddress],
    needs: Mapping[str, HostEnvironment],
) -> dict[str, ClusterSpec]:
    """What each node is to know; the head first."""
    cluster = loaded.cluster
    ordered = sorted(nodes, key=lambda node: node.name != cluster.head_node.name)
    described = tuple(
        RunNode(
            name=node.name,
            address=places[node.name].address,
            interface=places[node.name].interface,
            cpus=min(node.cpus or facts[node.name].cores, facts[node.name].cores),
            ranks_per_node=_ranks_per_node(node, facts[node.name]),
            accelerator=node.accelerator,
            pool=node.pool,
            share=node.share,
        )
        for node in ordered
    )
    first = ordered[0].name
    spec = ClusterSpec(
        cluster=cluster.name,
        node=first,
        nodes=described,
        env=needs[first].key,
        code=needs[first].code.key,
        python=needs[first].python.key,
        profile=cluster.network.profile,
        idle_minutes=cluster.idle_minutes,
    )
    return {
        node.name: spec.for_node(
            node.name, env=needs[node.name].key, python=needs[node.name].python.key
        )
        for node in ordered
    }


def _ranks_per_node(node: Node, facts: HostFacts) -> int:
    """A rank for each GPU; on a CPU node one for all its cores."""
    if node.accelerator == "cpu":
        return 1
    return node.gpus or max(1, len(facts.gpus.of_vendor(VENDOR_BY_ACCELERATOR[node.accelerator])))


def _judge(
    errors: Sequence[HostError], findings: Sequence[Finding], watcher: BringUpObserver
) -> LaunchError | None:
    """Warnings are said; all that keeps Ray from being started is one error."""
    for finding in findings:
        if finding.severity == "warning":
            watcher.say(f"{finding.host}: {finding.message}")
    found = [f for f in findings if f.severity == "error"]
    wrong = [*errors, *(LaunchError(f"{f.host}: {f.message}", fix=f.fix) for f in found)]
    return _together(wrong) if wrong else None


def _together(errors: Sequence[LaunchError]) -> LaunchError:
    if len(errors) == 1:
        return errors[0]
    fixes = dict.fromkeys(error.fix for error in errors if error.fix)
    return LaunchError("\n".join(error.message for error in errors), fix="\n".join(fixes) or None)
