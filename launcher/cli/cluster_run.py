"""Runs on a cluster from Enter to the end: connect, check, install, Ray, text, submit, follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from launcher.cli.attach import detached_words, follow_there, say_detached
from launcher.cli.bring_up_view import BringUpView
from launcher.config.cluster import (
    LoadedCluster,
    require_addresses,
    require_trainable,
)
from launcher.config.paths import launch_home
from launcher.config.recipe import Data, LoadedRecipe
from launcher.errors import Interrupted, RunBusy
from launcher.raycluster.bring_up import Stages, bring_up, prepare
from launcher.raycluster.spec import ClusterSpec
from launcher.runs.folder import USED_FILE, write_json
from launcher.runs.heads import connect_head
from launcher.runs.remote import ClusterRuns, RemoteRun, run_names
from launcher.runs.text import send_text
from launcher.transport.connection import Connection
from launcher.transport.together import all_of, close_all, connect_each, on_all


@dataclass(frozen=True)
class UpCluster:
    """A cluster that is up, for as long as the block lasts in which it was opened."""

    spec: ClusterSpec
    runs: ClusterRuns
    connections: Mapping[str, Connection]
    stages: Stages
    view: BringUpView
    head_clock_offset_seconds: float  # the head's clock minus ours

    def send_text(self, data: Data, base: Path) -> dict[str, str]:
        """See launcher.runs.text."""
        head = self.connections[self.spec.head.name]

        def waiting() -> None:
            self.view.say(f"{head.name}: another client is at work there: waiting for it")

        with self.view:
            return send_text(self.connections, self.spec, data, base, self.view.sent, waiting)

    def forgotten_runs(self) -> set[str]:
        """Those that a host has checkpoints of and the head, which lost its disk, nothing."""
        names = on_all(self.connections, lambda host: run_names(host, self.spec.cluster))
        return set().union(*names.values()) - set(names[self.spec.head.name])


def run_there(
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
    with open_up(cluster, pool) as up:
        if not spec["waits"]:
            _require_free_hosts(up)
        with up.stages.stage("text"):
            text = up.send_text(Data.model_validate(spec["settings"]["data"]), Path.cwd())
        with up.stages.stage("create"):
            nodes = [asdict(node) for node in up.spec.nodes]
            workers = sum(node.slots for node in up.spec.nodes)
            settings = {**spec["settings"], "workers": workers}
            entered = spec["entered"] + up.head_clock_offset_seconds
            there = {
                "entered": entered, "cluster": up.spec.cluster, "pool": pool, "nodes": nodes,
                "text": text, "settings": settings,
            }  # fmt: skip
            run = up.runs.create(
                run_name, loaded.name, {**spec, **there}, elsewhere=up.forgotten_runs()
            )
        submit(run, up, detach=detach, as_json=as_json)


def _require_free_hosts(up: UpCluster) -> None:
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
def open_up(cluster: LoadedCluster, pool: str | None) -> Iterator[UpCluster]:
    """Bring the cluster up, where it is not, and stay connected to it."""
    nodes = require_trainable(cluster, pool)
    require_addresses(cluster, nodes)
    stages, view = Stages(), BringUpView()
    with stages.stage("connect"):
        connections, unreached = connect_each(cluster, nodes)
    try:
        if not connections:
            raise all_of(unreached)
        with view:
            prepared = prepare(cluster, nodes, connections, stages, view, unreached)
            spec = bring_up(prepared, connections, stages, view)
        head = connections[spec.head.name]
        runs = ClusterRuns(spec, head, lambda: connect_head(cluster))
        here = launch_home() / "clusters" / spec.cluster
        here.mkdir(parents=True, exist_ok=True)
        write_json(here / USED_FILE, {"file": str(cluster.path.absolute()), "pool": cluster.part})
        offset = prepared.facts[spec.head.name].clock_offset_seconds
        yield UpCluster(spec, runs, connections, stages, view, offset)
    finally:
        close_all(connections)


def submit(run: RemoteRun, up: UpCluster, *, detach: bool, as_json: bool) -> None:
    """And follow it, or leave it. Ctrl-C leaves it alone from the moment it may have begun."""
    try:
        with up.stages.stage("submit"):
            run.submit()
    except KeyboardInterrupt:
        raise Interrupted(f"detached: {detached_words(run)}") from None
    click.echo(up.view.table(up.stages), err=True)
    if detach:
        say_detached(run, as_json=as_json)
    else:
        follow_there(run, as_json=as_json)
