"""`launch resume` of a cluster's run: wait for its hosts, follow it where it has gone on by itself,
bring its record to a head that lacks it, submit it on the nodes that there are now."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from launcher.cli.attach import follow_remote, print_detached
from launcher.cli.cluster_run import OpenCluster, open_cluster, submit
from launcher.cli.resume import print_changes, print_position, should_resume, updated_spec
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import require_addresses, require_trainable
from launcher.config.paths import launch_home
from launcher.config.recipe import DataSettings
from launcher.errors import (
    ConnectionLost,
    HostError,
    HostsFailed,
    HostTimeout,
    InputError,
    Interrupted,
    LaunchError,
    LoginRefused,
    Unreachable,
)
from launcher.planner.tuning import Tuning
from launcher.raycluster.membership import Membership, choose_members
from launcher.remote.cluster_runs import PAUSES, RemoteRun
from launcher.remote.open import open_cluster_runs
from launcher.remote.push_run import find_record, push_run
from launcher.runs.folder import RunFolder
from launcher.runs.overrides import apply_overrides
from launcher.runs.submit import require_rows_for_all
from launcher.ssh.parallel import close_all, combine_errors, connect_each

Answer = TypeVar("Answer")
PASSING = (Unreachable, ConnectionLost, HostTimeout)


class ClusterResume:
    """One such command. `extend`: so many steps more. `waits`: for hosts that do not answer."""

    def __init__(
        self, cluster: str, name: str, settings: Sequence[str], extend: int | None, *, waits: bool
    ) -> None:
        self._cluster = cluster
        self._loaded = load_cluster(cluster)
        self._name = name
        self._shown = f"{self._loaded.name}/{name}"
        self._folder = RunFolder(launch_home() / "clusters" / self._loaded.name / "runs" / name)
        self._settings = settings
        self._extend = extend
        self._waits = waits

    def run(self, *, detach: bool, as_json: bool) -> None:
        """Raises InputError where nothing of the run is left, or it may not change like that."""
        if self._patiently(self._goes_on):
            with open_cluster_runs(self._cluster) as runs:
                run = runs.find(self._name)
                run.update()
                self._follow(run, detach=detach, as_json=as_json)
            return
        changes = updated_spec(self._folder, self._settings, self._extend)
        spec = self._folder.spec()
        pool, elastic = spec["pool"], spec["settings"]["elastic"]
        if self._waits and not elastic:
            self._patiently(lambda: self._require_hosts(pool))
        try:
            with open_cluster(self._loaded, pool, elastic=elastic) as up:
                self._resume(up, changes, detach=detach, as_json=as_json)
        except (HostError, HostsFailed) as error:
            raise self._with_wait(error) from None

    def _goes_on(self) -> bool:
        """Whether its hosts have gone on with it. Raises InputError where neither they nor this
        machine know the run."""
        try:
            with open_cluster_runs(self._cluster) as runs:
                run = runs.find(self._name)
                run.update()
                return self._is_to_follow(run)
        except InputError:
            if not self._folder.spec():
                raise
            return False

    def _is_to_follow(self, run: RemoteRun) -> bool:
        return not (self._settings or self._extend) and run.goes_on_by_itself()

    def _follow(self, run: RemoteRun, *, detach: bool, as_json: bool) -> None:
        click.echo(f"run '{self._shown}' has gone on by itself", err=True)
        if detach:
            print_detached(run, as_json=as_json)
        else:
            follow_remote(run, as_json=as_json)

    def _require_hosts(self, pool: str | None) -> None:
        """Raises HostError or HostsFailed for those that do not answer, but for drained ones."""
        nodes = require_trainable(self._loaded, pool)
        require_addresses(self._loaded, nodes)
        connections, unreached = connect_each(self._loaded, nodes)
        try:
            everyone = Membership(nodes, connections, unreached)
            there = choose_members(
                self._loaded, everyone, elastic=False, takes_back=False,
                say=lambda words: None,  # the run's own bring-up says it
            )  # fmt: skip
        finally:
            close_all(connections)
        if there.unreached:
            raise combine_errors(there.unreached)

    def _resume(
        self, up: OpenCluster, changes: dict[str, Any], *, detach: bool, as_json: bool
    ) -> None:
        run = RemoteRun(up.runs, self._name)
        spec = self._folder.spec()
        settings = {**spec, **changes}["settings"]
        data = DataSettings.model_validate(settings["data"])
        if not run.is_there():
            self._bring_record(run, up, data)
        elif self._is_to_follow(run):
            self._follow(run, detach=detach, as_json=as_json)
            return
        if not should_resume(run, as_json=as_json, extends=self._extend is not None):
            return
        if data.mirror != DataSettings.model_validate(spec["settings"]["data"]).mirror:
            with up.stages.stage("text"):  # a folder is this machine's; other text is there
                source = data.model_copy(update={"validation": None})
                sent = up.send_text(source, Path(spec["folder"]))
                changes["text"] = run.folder.spec().get("text", {}) | sent
        print_changes(run.folder, changes)
        self._require_rows_for_all(up, spec)
        changes |= up.nodes_entry(settings, Tuning.from_spec(spec))
        before, now = _dealt(spec["nodes"]), _dealt(changes["nodes"])
        if before != now:
            click.echo(
                f"run '{self._shown}' was on {before} and goes on on {now}: the same rows in the "
                "same order, losses equal within rounding",
                err=True,
            )
        entered = time.time() + up.head_clock_offset_seconds
        run.update_spec(entered=entered, waits=True, **changes)
        run.mirror.update(up.runs.head)
        print_position(run)
        submit(run, up, detach=detach, as_json=as_json)

    def _bring_record(self, run: RemoteRun, up: OpenCluster, data: DataSettings) -> None:
        checkpoint = find_record(run, list(up.connections.values()))
        with up.stages.stage("text"):
            text = up.send_text(data, Path(run.folder.spec()["folder"]))
        with up.stages.stage("send back"), up.view:
            push_run(
                up.runs.head, run.folder, checkpoint, run.path, {"text": text}, up.view.sent
            )  # fmt: skip

    def _require_rows_for_all(self, up: OpenCluster, spec: dict[str, Any]) -> None:
        """Raises ConfigError where a node that the cluster has now would get no row of a step."""
        recipe = apply_overrides(spec, self._settings)
        one = recipe.recipe.model_copy(update={"workers": 1})  # they were those of other nodes
        shares = up.shares(Tuning.from_spec(spec))
        require_rows_for_all(replace(recipe, recipe=one), up.spec.cluster, shares)

    def _patiently(self, ask: Callable[[], Answer]) -> Answer:
        """What it returns, once the hosts answer; where nobody waits, their errors name --wait."""
        failures = 0
        while True:
            try:
                if failures:
                    time.sleep(PAUSES[min(failures, len(PAUSES)) - 1])
                answer = ask()
            except KeyboardInterrupt:
                if not failures:
                    raise
                words = f"run '{self._shown}' is as it was: not resumed from here"
                raise Interrupted(words) from None
            except (HostError, HostsFailed) as error:
                if not self._waits:
                    raise self._with_wait(error) from None
                if not _passes(error, booting=failures > 0):
                    raise
                if not failures:
                    click.echo(f"{error.message}; waiting for it (Ctrl-C ends that)", err=True)
                failures += 1
            else:
                if failures:
                    click.echo("it answers", err=True)
                return answer

    def _with_wait(self, error: HostError | HostsFailed) -> LaunchError:
        """With --wait among what helps, where it does."""
        if not self._waits and _passes(error, booting=False):
            again = f"launch resume {self._shown} --wait   goes on as soon as it answers"
            error.fix = "\n".join(filter(None, (error.fix, again)))
        return error


def _passes(error: HostError | HostsFailed, *, booting: bool) -> bool:
    """Whether a host that does not answer now may do so later. One that is just booting refuses
    logins for a while."""
    errors = error.errors if isinstance(error, HostsFailed) else (error,)
    return all(
        isinstance(each, PASSING) or (booting and isinstance(each, LoginRefused)) for each in errors
    )


def _dealt(nodes: Sequence[dict[str, Any]]) -> str:
    """Who takes which share of the rows, for people."""
    equal = len({node["share"] / node["slots"] for node in nodes}) == 1
    return ", ".join(
        node["name"] + ("" if equal else f" (share {node['share']:g})") for node in nodes
    )
