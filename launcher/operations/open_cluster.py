"""A cluster that is made ready, joined by Ray and connected to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from launcher.config.loaded_cluster import LoadedCluster, require_addresses, require_trainable
from launcher.config.paths import launch_home
from launcher.config.recipe import DataSettings, Recipe
from launcher.operations.notify import LiveObserver, SilentObserver
from launcher.operations.run_address import UsedFile
from launcher.planner.tuning import tune_cluster_run
from launcher.raycluster.bring_up import StageTimes, bring_up, plan_bring_up
from launcher.raycluster.inventory import save_inventory
from launcher.raycluster.membership import Membership, choose_members, run_nodes
from launcher.raycluster.spec import ClusterSpec
from launcher.remote.cluster_runs import ClusterRuns, run_names
from launcher.remote.open_runs import connect_head
from launcher.remote.upload_text import upload_text
from launcher.runs.folder import USED_FILE
from launcher.runs.node import RunNode
from launcher.runs.spec import RunSpec, Tuning
from launcher.ssh.parallel import call_on_all, close_all, combine_errors, try_connect_all
from launcher.ssh.protocol import Connection


@dataclass(frozen=True)
class OpenCluster:
    """A cluster that is up, for as long as the block lasts in which it was opened."""

    cluster: LoadedCluster
    spec: ClusterSpec
    run_nodes: tuple[RunNode, ...]
    """Those of a run that begins; nodes of an elastic one may be absent yet."""
    runs: ClusterRuns
    connections: Mapping[str, Connection]
    stages: StageTimes
    observer: LiveObserver
    head_clock_offset_seconds: float
    """The head's clock minus ours."""

    def send_text(self, data: DataSettings, base: Path) -> dict[str, str]:
        """See launcher.remote.upload_text."""
        observer = self.observer
        with observer:
            return upload_text(
                self.connections, self.spec, data, base, observer.show_transfer, observer.notify
            )

    def tuning(self, recipe: Recipe) -> Tuning:
        """What was measured of its nodes decides for a run that begins."""
        names = {node.name for node in self.cluster.cluster.nodes}
        nodes = [node for node in self.run_nodes if node.name in names]
        return tune_cluster_run(recipe, self.cluster, nodes)

    def shares(self, tuning: Tuning) -> dict[str, float]:
        """Node -> its share: as the cluster file says, else as it was measured."""
        explicit = {node.name: node.explicit_share for node in self.cluster.cluster.nodes}
        is_explicit = any(explicit.get(node.name) is not None for node in self.run_nodes)
        measured = {} if is_explicit else tuning.shares
        return {node.name: measured.get(node.name, node.share) for node in self.run_nodes}

    def assign_nodes(self, spec: RunSpec, tuning: Tuning) -> RunSpec:
        """Return the spec of a run that is to train here."""
        shares = self.shares(tuning)
        nodes = [n.model_copy(update={"share": shares[n.name]}) for n in self.run_nodes]
        workers = sum(node.ranks_per_node for node in nodes)
        settings = {**spec.settings, "workers": workers}
        return spec.with_changes(nodes=tuple(nodes), settings=settings)

    def runs_missing_on_head(self) -> set[str]:
        """Names of runs that a host has checkpoints of, but the head, which lost its disk, not."""
        names = call_on_all(self.connections, lambda host: run_names(host, self.spec.cluster))
        return set().union(*names.values()) - set(names[self.spec.head.name])


@contextmanager
def open_cluster(
    cluster: LoadedCluster,
    pool: str | None = None,
    *,
    elastic: bool = False,
    undrain_nodes: bool = False,
    observer: LiveObserver | None = None,
) -> Iterator[OpenCluster]:
    """Bring the cluster up if it is not, and stay connected to it.

    `elastic`: continue with the nodes that answer and are well. `undrain_nodes`: take drained nodes
    back; otherwise they are left out.
    """
    observer = observer or SilentObserver()
    nodes = require_trainable(cluster, pool)
    require_addresses(cluster, nodes)
    stages = StageTimes()
    with stages.measure("connect"):
        connections, unreached = try_connect_all(cluster, nodes)
    try:
        if not connections:
            raise combine_errors(unreached)
        with observer:
            members = choose_members(
                cluster, Membership(nodes, connections, unreached),
                elastic=elastic, undrain_nodes=undrain_nodes, notify=observer.notify,
            )  # fmt: skip
            members, spec, offset = _bring_up(cluster, members, stages, observer, elastic=elastic)
        head = connections[spec.head.name]
        expected_nodes = run_nodes(cluster, nodes, head, spec) if elastic else spec.nodes
        runs = ClusterRuns(spec, head, lambda: connect_head(cluster))
        local_folder = launch_home() / "clusters" / spec.cluster
        local_folder.mkdir(parents=True, exist_ok=True)
        used = UsedFile(file=str(cluster.path.absolute()), pool=cluster.subcluster)
        used.write(local_folder / USED_FILE)
        yield OpenCluster(
            cluster, spec, expected_nodes, runs, members.connections, stages, observer, offset
        )
    finally:
        close_all(connections)


def _bring_up(
    cluster: LoadedCluster,
    members: Membership,
    stages: StageTimes,
    observer: LiveObserver,
    *,
    elastic: bool,
) -> tuple[Membership, ClusterSpec, float]:
    """Return who is up, what the head knows, and its clock minus ours."""
    plan = plan_bring_up(
        cluster, members.nodes, members.connections, stages, observer, members.unreached
    )
    if elastic and plan.error is not None and cluster.cluster.head_node.name in plan.host_plans:
        observer.notify(f"{plan.error.message}\n  going on with {', '.join(plan.host_plans)}")
        members = members.only(plan.host_plans)
        plan = plan_bring_up(cluster, members.nodes, members.connections, stages, observer)
    save_inventory(cluster, plan.facts)
    spec = bring_up(plan, members.connections, stages, observer)
    return members, spec, plan.facts[spec.head.name].clock_offset_seconds
