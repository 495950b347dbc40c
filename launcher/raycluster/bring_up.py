"""From machines that answer SSH to a cluster that is up: facts, checks, environment, Ray."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from launcher.config.loaded_cluster import LoadedCluster
from launcher.config.node import Node
from launcher.errors import HostError, HostsFailed, LaunchError, RunBusy
from launcher.hosts.cluster_addresses import ClusterAddress
from launcher.hosts.facts import HostFacts
from launcher.hosts.gpu_preflight import VENDOR_BY_ACCELERATOR
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
    start_ray,
    start_script,
    stop_ray,
)
from launcher.raycluster.observer import BringUpObserver
from launcher.raycluster.probe import probe_cluster
from launcher.raycluster.spec import CLIENT_SEEN_FILE, ClusterSpec, cluster_folder
from launcher.runs.node import RunNode
from launcher.ssh.protocol import Connection


@dataclass
class StageTimes:
    """Seconds of each stage, in order; `hosts` has those of single hosts."""

    seconds: dict[str, float] = field(default_factory=dict)
    hosts: dict[str, dict[str, float]] = field(default_factory=dict)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        started_at = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - started_at, 3)


@dataclass(frozen=True)
class BringUpPlan:
    """What a bring-up found and will do, by node, before anything is changed."""

    facts: Mapping[str, HostFacts]
    states: Mapping[str, HostState]
    host_plans: Mapping[str, HostPlan]
    specs: Mapping[str, ClusterSpec]
    """Empty if there is an `error`."""
    removed_nodes: Sequence[str]
    """Nodes of the running Ray that the cluster file no longer has; Ray would still use them."""
    error: LaunchError | None = None
    """Why Ray cannot be started on all hosts. Healthy hosts have plans nevertheless."""

    def is_stale(self, states: Mapping[str, HostState]) -> bool:
        """Whether a Ray is up that must begin anew to be what is wanted."""
        running = {name: state for name, state in states.items() if state.is_running}
        return bool(self.removed_nodes) or any(
            state.key != self.specs[name].key for name, state in running.items()
        )


def plan_bring_up(
    loaded: LoadedCluster,
    nodes: tuple[Node, ...],
    connections: Mapping[str, Connection],
    stages: StageTimes,
    observer: BringUpObserver,
    unreached: Sequence[HostError] = (),
) -> BringUpPlan:
    """Facts in, plans out. A failing host does not keep the others from getting ready.

    `unreached`: why there is no connection to the other nodes. Raises LaunchError if nothing can
    be planned.
    """
    cluster = loaded.cluster
    with stages.measure("check"):
        probe = probe_cluster(loaded, connections, unreached)
    errors, findings, facts = probe.errors, probe.findings, probe.facts
    error = _blocking_error(errors, findings, observer)
    failing = {f.host for f in findings if f.severity == "error" and not f.peer}
    failing |= {error.host for error in errors}
    healthy = tuple(node for node in nodes if node.name in facts and node.name not in failing)
    if error is not None and not healthy:
        raise error
    with stages.measure("choose"):
        environments = plan_environments(
            healthy, cluster.environment, facts, probe.connections, notify=observer.notify
        )
        host_plans = {
            name: plan_host(name, facts[name], environment)
            for name, environment in environments.items()
        }
    if error is not None:
        return BringUpPlan(facts, probe.states, host_plans, {}, [], error)
    specs = node_specs(loaded, nodes, facts, probe.addresses, environments)
    names = {node.name for node in cluster.nodes}
    nodes_before = probe.running_spec.nodes if probe.running_spec else ()
    removed_nodes = [node.name for node in nodes_before if node.name not in names]
    return BringUpPlan(facts, probe.states, host_plans, specs, removed_nodes)


def bring_up(
    plan: BringUpPlan,
    connections: Mapping[str, Connection],
    stages: StageTimes,
    observer: BringUpObserver,
) -> ClusterSpec:
    """Install what is missing, start Ray where it is not up. The head's spec.

    A Ray of other code or settings than ours, or of another head, is started anew. Raises RunBusy
    if that would end a run; HostError, HostsFailed or the plan's error once all other hosts are
    ready.
    """
    _install(plan, connections, stages, observer)
    head_spec = next(iter(plan.specs.values()))
    head = connections[head_spec.head.name]
    if _is_all_up(plan, plan.states):
        touch = f"touch {cluster_folder(head_spec.cluster)}/{CLIENT_SEEN_FILE}"
        head.check(touch, step="keep Ray up")  # it may have been idle
        return head_spec

    with (
        stages.measure("Ray"),
        client_lock(head, notify=named(head, observer.notify)),
    ):
        # Another client may have been here since.
        states = host_states(connections, head_spec.cluster)
        if not _is_all_up(plan, states):
            _start_ray(plan, connections, states, observer)
    return head_spec


def _install(
    plan: BringUpPlan,
    connections: Mapping[str, Connection],
    stages: StageTimes,
    observer: BringUpObserver,
) -> None:
    ready = list(plan.host_plans)
    error = plan.error
    try:
        if any(host_plan.operations for host_plan in plan.host_plans.values()):
            with stages.measure("gather"):
                fetch_all_wheels(plan.host_plans, progress=observer.show_packages)
            with stages.measure("install"):
                applied = apply_plans(connections, plan.host_plans, progress=observer.show_transfer)
            stages.hosts |= {host: applied_plan.seconds for host, applied_plan in applied.items()}
    except (HostError, HostsFailed) as failure:
        failures = failure.errors if isinstance(failure, HostsFailed) else (failure,)
        failed = {host_error.host for host_error in failures}
        ready = [name for name in ready if name not in failed]
        error = failure if error is None else _merge_errors([error, failure])
    if error is not None:
        if ready:
            observer.notify(f"ready: {', '.join(ready)}; the same command goes on from there")
        raise error


def _start_ray(
    plan: BringUpPlan,
    connections: Mapping[str, Connection],
    states: Mapping[str, HostState],
    observer: BringUpObserver,
) -> None:
    head_spec = next(iter(plan.specs.values()))
    cluster = head_spec.cluster
    stale = plan.is_stale(states)
    if stale or not states[head_spec.head.name].is_running:
        up = {name: host for name, host in connections.items() if states[name].status != "down"}
        if names := active_runs(up, cluster):
            raise RunBusy(
                f"run '{names[0]}' is at work on {cluster}, and Ray would have to be started "
                "anew: your code, packages or cluster file differ from what it runs with",
                fix=f"wait for its end, or: launch stop {cluster}/{names[0]}",
            )
        if stale:
            observer.notify("Ray runs with other code or settings: starting it anew")
        stop_ray(connections, cluster)
        states = {}

    def show_status(node: str, status: str) -> None:
        if not (node in states and states[node].is_running):
            observer.notify(f"{node}: Ray is {status}")

    for node, hook in start_ray(connections, plan.specs, show_status).items():
        facts = plan.facts[node]
        if facts.kills_user_processes and hook != boot_hook.SYSTEMD:
            user = facts.user
            observer.notify(
                f"{node}: KillUserProcesses=yes ends Ray there when this command ends its login; "
                f"fix: sudo loginctl enable-linger {user}, then down and up"
            )
        elif hook == boot_hook.NONE:
            observer.notify(
                f"{node}: nothing can start Ray after a reboot: it rejoins at the next `up`"
            )


def _is_all_up(plan: BringUpPlan, states: Mapping[str, HostState]) -> bool:
    all_up = all(state.status == "up" for state in states.values())
    return all_up and not plan.is_stale(states)


def start_commands(plan: BringUpPlan, node: str) -> list[str]:
    """What `bring_up` would run to start Ray there; nothing where it is up."""
    state, spec = plan.states[node], plan.specs[node]
    stale = plan.is_stale(plan.states)
    if state.is_running and not stale:
        return []
    folder = f"~/{cluster_folder(spec.cluster)}"
    kill = f"kill {state.pid}   # Ray runs with other code or settings"
    return [
        *([kill] if state.is_running else []),
        f"write {folder}/token (0600), {folder}/cluster.json",
        f"write ~/{boot_hook.start_file(spec.cluster)}\n{start_script(spec)}".rstrip(),
        boot_hook.install_and_start(spec.cluster),
    ]


def node_specs(
    loaded: LoadedCluster,
    nodes: tuple[Node, ...],
    facts: Mapping[str, HostFacts],
    addresses: Mapping[str, ClusterAddress],
    environments: Mapping[str, HostEnvironment],
) -> dict[str, ClusterSpec]:
    """What each node is to know; the head first."""
    cluster = loaded.cluster
    ordered = sorted(nodes, key=lambda node: node.name != cluster.head_node.name)
    run_nodes = tuple(
        RunNode(
            name=node.name,
            address=addresses[node.name].address,
            interface=addresses[node.name].interface,
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
        nodes=run_nodes,
        env=environments[first].key,
        code=environments[first].code.key,
        python=environments[first].python.key,
        profile=cluster.network.profile,
        idle_minutes=cluster.idle_minutes,
    )
    return {
        node.name: spec.for_node(
            node.name, env=environments[node.name].key, python=environments[node.name].python.key
        )
        for node in ordered
    }


def _ranks_per_node(node: Node, facts: HostFacts) -> int:
    """A rank for each GPU; on a CPU node one for all its cores."""
    if node.accelerator == "cpu":
        return 1
    return node.gpus or max(1, len(facts.gpus.of_vendor(VENDOR_BY_ACCELERATOR[node.accelerator])))


def _blocking_error(
    host_errors: Sequence[HostError], findings: Sequence[Finding], observer: BringUpObserver
) -> LaunchError | None:
    """Warnings are said; all that keeps Ray from being started is one error."""
    for finding in findings:
        if finding.severity == "warning":
            observer.notify(f"{finding.host}: {finding.message}")
    blocking = [f for f in findings if f.severity == "error"]
    errors = [*host_errors, *(LaunchError(f"{f.host}: {f.message}", fix=f.fix) for f in blocking)]
    return _merge_errors(errors) if errors else None


def _merge_errors(errors: Sequence[LaunchError]) -> LaunchError:
    if len(errors) == 1:
        return errors[0]
    fixes = dict.fromkeys(error.fix for error in errors if error.fix)
    return LaunchError("\n".join(error.message for error in errors), fix="\n".join(fixes) or None)
