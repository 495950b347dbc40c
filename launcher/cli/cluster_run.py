"""Runs on a cluster from Enter to the end: connect, check, install, Ray, text, submit, follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from launcher.cli.attach import Report, detached_message, follow_remote, print_detached
from launcher.cli.render.bring_up import BringUpView
from launcher.config.loaded_cluster import LoadedCluster, require_addresses, require_trainable
from launcher.config.paths import launch_home
from launcher.config.recipe import DataSettings, LoadedRecipe, Recipe
from launcher.errors import Interrupted, RunBusy
from launcher.planner.run_tuning import apply_tuning, tune_cluster_run
from launcher.planner.tuning import Tuning
from launcher.raycluster.bring_up import StageTimes, bring_up, plan_bring_up
from launcher.raycluster.membership import Membership, choose_members, run_nodes
from launcher.raycluster.spec import ClusterSpec, NodeSpec
from launcher.remote.cluster_runs import ClusterRuns, RemoteRun, run_names
from launcher.remote.open import connect_head
from launcher.remote.upload_text import upload_text
from launcher.runs.folder import USED_FILE, write_json
from launcher.ssh.parallel import call_on_all, close_all, combine_errors, connect_each
from launcher.ssh.protocol import Connection


@dataclass(frozen=True)
class OpenCluster:
    """A cluster that is up, for as long as the block lasts in which it was opened. `run_nodes`: of
    a run that begins; an elastic one's may be not there yet."""

    cluster: LoadedCluster
    spec: ClusterSpec
    run_nodes: tuple[NodeSpec, ...]
    runs: ClusterRuns
    connections: Mapping[str, Connection]
    stages: StageTimes
    view: BringUpView
    head_clock_offset_seconds: float  # the head's clock minus ours

    def send_text(self, data: DataSettings, base: Path) -> dict[str, str]:
        """See launcher.remote.upload_text."""
        head = self.connections[self.spec.head.name]

        def waiting() -> None:
            self.view.say(f"{head.name}: another client is at work there: waiting for it")

        with self.view:
            return upload_text(self.connections, self.spec, data, base, self.view.sent, waiting)

    def chosen(self, recipe: Recipe) -> Tuning:
        """By what was measured of its nodes, for a run that begins."""
        by_name = {node.name: node for node in self.cluster.cluster.nodes}
        nodes = [
            (by_name[node.name], node.slots, max(1, node.cpus // node.slots))
            for node in self.run_nodes
            if node.name in by_name
        ]
        return tune_cluster_run(recipe, self.cluster, nodes)

    def shares(self, chosen: Tuning) -> dict[str, float]:
        """Of the run's nodes: as the cluster file has them, else as they were chosen."""
        file = {node.name: node.written_share for node in self.cluster.cluster.nodes}
        written = any(file.get(node.name) is not None for node in self.run_nodes)
        measured = {} if written else chosen.shares
        return {node.name: measured.get(node.name, node.share) for node in self.run_nodes}

    def nodes_entry(self, settings: Mapping[str, Any], chosen: Tuning) -> dict[str, Any]:
        """What run.json says of a run's nodes."""
        workers = sum(node.slots for node in self.run_nodes)
        shares = self.shares(chosen)
        nodes = [asdict(replace(node, share=shares[node.name])) for node in self.run_nodes]
        return {"nodes": nodes, "settings": {**settings, "workers": workers}}

    def forgotten_runs(self) -> set[str]:
        """Those that a host has checkpoints of and the head, which lost its disk, nothing."""
        names = call_on_all(self.connections, lambda host: run_names(host, self.spec.cluster))
        return set().union(*names.values()) - set(names[self.spec.head.name])


def start_remote(
    loaded: LoadedRecipe,
    cluster: LoadedCluster,
    pool: str | None,
    spec: dict[str, Any],
    *,
    run_name: str | None,
    detach: bool,
    as_json: bool,
) -> None:
    """`spec`: what goes into run.json."""
    with open_cluster(cluster, pool, elastic=loaded.recipe.elastic) as up:
        if not spec["waits"]:
            _require_free_hosts(up)
        chosen = up.chosen(loaded.recipe)
        run = create_remote(up, loaded.name, pool, apply_tuning(spec, chosen), run_name, chosen)
        submit(run, up, detach=detach, as_json=as_json)


def create_remote(
    up: OpenCluster,
    recipe: str,
    pool: str | None,
    spec: Mapping[str, Any],
    run_name: str | None,
    chosen: Tuning,
) -> RemoteRun:
    """A new run on the head, its text there too. `recipe`: what it is named after."""
    with up.stages.stage("text"):
        text = up.send_text(DataSettings.model_validate(spec["settings"]["data"]), Path.cwd())
    with up.stages.stage("create"):
        entered = spec["entered"] + up.head_clock_offset_seconds
        there = {
            "entered": entered, "cluster": up.spec.cluster, "pool": pool, "text": text,
            **up.nodes_entry(spec["settings"], chosen),
        }  # fmt: skip
        return up.runs.create(run_name, recipe, {**spec, **there}, elsewhere=up.forgotten_runs())


def _require_free_hosts(up: OpenCluster) -> None:
    """Raises RunBusy where another run has one of them."""
    ours = {node.name for node in up.spec.nodes}
    for name in up.runs.running():
        run = RemoteRun(up.runs, name)
        run.update()
        if ours & {node["name"] for node in run.folder.spec()["nodes"]}:
            raise RunBusy(
                f"run '{name}' has these hosts",
                fix=f"leave --no-wait out: it waits; or: launch stop {up.spec.cluster}/{name}",
            )


@contextmanager
def open_cluster(
    cluster: LoadedCluster, pool: str | None, *, elastic: bool = False, takes_back: bool = False
) -> Iterator[OpenCluster]:
    """Bring the cluster up, where it is not, and stay connected to it.

    `elastic`: with those of its nodes that are there and well. `takes_back`: drained ones too,
    which are else left out.
    """
    nodes = require_trainable(cluster, pool)
    require_addresses(cluster, nodes)
    stages, view = StageTimes(), BringUpView()
    with stages.stage("connect"):
        connections, unreached = connect_each(cluster, nodes)
    try:
        if not connections:
            raise combine_errors(unreached)
        with view:
            everyone = Membership(nodes, connections, unreached)
            there = choose_members(
                cluster, everyone, elastic=elastic, takes_back=takes_back, say=view.say
            )  # fmt: skip
            there, spec, offset = _bring_up(cluster, there, stages, view, elastic=elastic)
        head = connections[spec.head.name]
        expected = run_nodes(cluster, nodes, head, spec) if elastic else spec.nodes
        runs = ClusterRuns(spec, head, lambda: connect_head(cluster))
        here = launch_home() / "clusters" / spec.cluster
        here.mkdir(parents=True, exist_ok=True)
        write_json(here / USED_FILE, {"file": str(cluster.path.absolute()), "pool": cluster.part})
        yield OpenCluster(cluster, spec, expected, runs, there.connections, stages, view, offset)
    finally:
        close_all(connections)


def _bring_up(
    cluster: LoadedCluster,
    there: Membership,
    stages: StageTimes,
    view: BringUpView,
    *,
    elastic: bool,
) -> tuple[Membership, ClusterSpec, float]:
    """Who is up, what the head knows, and its clock minus ours."""
    prepared = plan_bring_up(cluster, there.nodes, there.connections, stages, view, there.unreached)
    if elastic and prepared.wrong is not None and cluster.cluster.head_node.name in prepared.plans:
        view.say(f"{prepared.wrong.message}\n  going on with {', '.join(prepared.plans)}")
        there = there.only(prepared.plans)
        prepared = plan_bring_up(cluster, there.nodes, there.connections, stages, view)
    spec = bring_up(prepared, there.connections, stages, view)
    return there, spec, prepared.facts[spec.head.name].clock_offset_seconds


def submit(
    run: RemoteRun, up: OpenCluster, *, detach: bool, as_json: bool, report: Report | None = None
) -> None:
    """And follow it, or leave it. Ctrl-C leaves it alone from the moment it may have begun."""
    try:
        with up.stages.stage("submit"):
            run.submit()
    except KeyboardInterrupt:
        raise Interrupted(f"detached: {detached_message(run)}") from None
    click.echo(up.view.table(up.stages), err=True)
    if detach:
        print_detached(run, as_json=as_json)
    else:
        follow_remote(run, as_json=as_json, report=report)
