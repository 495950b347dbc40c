"""Resume a run from its newest checkpoint, on this machine or on its cluster.

A cluster's run is more than starting a driver: its hosts may have gone on with it by themselves,
the head may have lost the run's record, and there may be other nodes now than before.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from launcher.config.cluster import LOCAL
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import require_addresses, require_trainable
from launcher.config.paths import launch_home
from launcher.errors import (
    ConnectionLost,
    HostError,
    HostsFailed,
    HostTimeout,
    InputError,
    Interrupted,
    LaunchError,
    LoginRefused,
    RunBusy,
    Unreachable,
)
from launcher.operations.notify import LiveObserver, Notify, SilentObserver, ignore
from launcher.operations.open_cluster import OpenCluster, open_cluster
from launcher.operations.run_address import open_run, resolve_run
from launcher.raycluster.membership import Membership, choose_members
from launcher.remote.cluster_runs import RECONNECT_BACKOFF, RemoteRun
from launcher.remote.open_runs import open_cluster_runs
from launcher.remote.push_run import find_record, push_run
from launcher.runs.driver_process import DriverProcess
from launcher.runs.extend import describe_schedule, extend_run
from launcher.runs.folder import RunFolder
from launcher.runs.node import RunNode
from launcher.runs.overrides import apply_overrides, require_complete_spec, require_settings
from launcher.runs.run import Run, run_address
from launcher.runs.spec import RunSpec
from launcher.runs.state import ACTIVE_STATUSES, RunState, last_saved_step, status_of
from launcher.runs.training_requirements import (
    require_rows_for_all,
    require_text,
    require_training_packages,
)
from launcher.ssh.parallel import close_all, combine_errors, try_connect_all
from nanochat.optimizer.schedule import Schedule

Result = TypeVar("Result")
TRANSIENT_ERRORS = (Unreachable, ConnectionLost, HostTimeout)
LINE_WIDTH = 100


def updated_spec(
    folder: RunFolder, settings: Sequence[str], extend: int | None
) -> tuple[RunSpec, RunSpec]:
    """Return the run's spec as it is, and with `settings`, KEY=VALUE, and `extend` steps more.

    Raises ConfigError for a setting that may not change, InputError if all steps are made, or if
    run.json is not enough to resume.
    """
    require_settings(settings)
    if extend is not None and extend < 1:
        raise InputError(f"--extend: {extend} steps", fix="at least 1")
    summary = folder.summary()
    if settings and not extend and summary is not None and summary.status == "finished":
        raise InputError(
            f"run '{folder.name}' has made all its steps: nothing is left for --set to change",
            fix="leave --set out, or prolong it: --extend STEPS",
        )
    before = spec = require_complete_spec(folder)
    changed = apply_overrides(spec, settings)  # also without settings: it may be edited by hand
    if settings:
        spec = spec.with_changes(settings=changed.recipe.model_dump(mode="json"))
        if spec.settings["data"] != before.settings["data"]:
            require_text(changed, Path(spec.folder), is_local=spec.cluster == "local")
    return before, extend_run(folder, spec, extend) if extend else spec


def is_resumable(run: Run, *, extends: bool) -> bool:
    """Return False if the run has made all its steps. Raises RunBusy, or InputError for an imported
    one."""
    status = status_of(run.folder, run.refresh())
    name = run_address(run)
    if status in ACTIVE_STATUSES:
        fix = f"launch stop {name}   first" if extends else f"launch logs {name} -f"
        raise RunBusy(f"run '{name}' is {status}", fix=fix)
    if status == "imported":
        raise InputError(
            f"run '{name}' was imported: its optimizer's state is not here to go on with",
            fix=f"launch sample {name}   lets it speak",
        )
    return status != "finished" or extends


def describe_extension(before: RunSpec, after: RunSpec) -> str | None:
    """Say what a longer schedule does. None if it is no longer than it was."""
    if len(after.extended) == len(before.extended):
        return None
    warmup = after.settings["warmup_steps"]
    entry = after.extended[-1]
    old, new = Schedule(entry.from_steps, warmup), Schedule(entry.to_steps, warmup)
    return textwrap.fill(describe_schedule(old, new, entry.at_step), LINE_WIDTH)


def describe_position(run: Run) -> str:
    """Say how far a run has come, and from where it resumes."""
    state = RunState.of(run.folder, alive=False)
    saved = last_saved_step(run.folder)
    newest = f"last saved at step {saved:,}" if saved else "nothing saved yet"
    return f"run '{run_address(run)}': {state.step:,} of {state.steps:,} steps, {newest}"


def resume_run(
    name: str,
    *,
    cluster: str | None = None,
    settings: Sequence[str] = (),
    extend: int | None = None,
    waits: bool = False,
    observer: LiveObserver | None = None,
    notify: Notify = ignore,
) -> str:
    """Resume a run and leave it in the background. Return its address, RUN or CLUSTER/RUN.

    `name`, `cluster`: as of `open_run`; `settings`: KEY=VALUE; `extend`: so many steps more than it
    was to make; `waits`: until the hosts of its cluster answer. A run that has made all its steps
    stays as it is. Raises RunBusy if it is running, InputError for what is asked for, HostError
    for hosts.
    """
    location, run_name = resolve_run(name, cluster)
    if location == LOCAL:
        with open_run(run_name, LOCAL) as local:
            if prepare_local_resume(local, settings, extend, command="resume_run", notify=notify):
                DriverProcess(local.folder, detach=True)
            return run_address(local)
    with resume_cluster_run(
        location, run_name, settings, extend, waits=waits, observer=observer, notify=notify
    ) as resume:
        if resume.cluster is not None and not resume.is_finished:
            resume.run.submit()
        return run_address(resume.run)


def prepare_local_resume(
    run: Run, settings: Sequence[str], extend: int | None, *, command: str, notify: Notify
) -> bool:
    """Change a run of this machine as asked for. False if it has made all its steps.

    `command`: what needs the packages of training. Raises RunBusy, InputError or MissingExtra.
    """
    before, spec = updated_spec(run.folder, settings, extend)
    if not is_resumable(run, extends=extend is not None):
        return False
    require_training_packages(command)
    with run.folder.locked():  # not of a run that another command has just begun
        run.folder.update_spec(**(spec.changes_since(before) | {"entered": time.time()}))
    if message := describe_extension(before, spec):
        notify(message)
    notify(describe_position(run))
    return True


@dataclass(frozen=True)
class ClusterResume:
    """A cluster's run that was asked to resume."""

    run: RemoteRun
    cluster: OpenCluster | None
    """To submit it on; None: its hosts have gone on with it by themselves."""
    is_finished: bool = False


@contextmanager
def resume_cluster_run(
    cluster: str,
    name: str,
    settings: Sequence[str] = (),
    extend: int | None = None,
    *,
    waits: bool = False,
    observer: LiveObserver | None = None,
    notify: Notify = ignore,
) -> Iterator[ClusterResume]:
    """Make a cluster's run ready to be submitted again; connected while the block lasts.

    `waits`: until its hosts answer. Raises InputError if nothing of the run is left, or it may not
    change like that.
    """
    request = _ResumeRequest(
        cluster, name, settings, extend, waits, observer or SilentObserver(), notify
    )
    if request.retry_until_answered(request.hosts_already_resumed):
        with open_cluster_runs(request.loaded) as runs:
            run = runs.find(name)
            run.update()
            yield ClusterResume(run, None)
        return
    before, spec = updated_spec(request.folder, settings, extend)
    elastic = spec.recipe.elastic
    if waits and not elastic:
        request.retry_until_answered(lambda: request.require_hosts(spec.pool))
    try:
        with open_cluster(request.loaded, spec.pool, elastic=elastic, observer=observer) as opened:
            yield request.prepare(opened, before, spec)
    except (HostError, HostsFailed) as error:
        raise request.suggest_wait(error) from None


class _ResumeRequest:
    """One call of `resume_cluster_run`."""

    def __init__(
        self, cluster: str, name: str, settings: Sequence[str], extend: int | None, waits: bool,
        observer: LiveObserver, notify: Notify,
    ) -> None:  # fmt: skip
        self.loaded = load_cluster(cluster)
        self._name = name
        self._address = f"{self.loaded.name}/{name}"
        self.folder = RunFolder(launch_home() / "clusters" / self.loaded.name / "runs" / name)
        self._settings = settings
        self._extend = extend
        self._waits = waits
        self._observer = observer
        self._notify = notify

    def hosts_already_resumed(self) -> bool:
        """Whether its hosts have gone on with it. Raises InputError if neither they nor this
        machine know the run."""
        try:
            with open_cluster_runs(self.loaded) as runs:
                run = runs.find(self._name)
                run.update()
                return self._is_already_running(run)
        except InputError:
            if self.folder.created() is None:
                raise
            return False

    def _is_already_running(self, run: RemoteRun) -> bool:
        return not (self._settings or self._extend) and run.is_restarted_by_supervisor()

    def require_hosts(self, pool: str | None) -> None:
        """Raise HostError or HostsFailed for those that do not answer, except drained ones."""
        nodes = require_trainable(self.loaded, pool)
        require_addresses(self.loaded, nodes)
        connections, unreached = try_connect_all(self.loaded, nodes)
        try:
            members = choose_members(
                self.loaded, Membership(nodes, connections, unreached),
                elastic=False, undrain_nodes=False, notify=ignore,  # the bring-up says it again
            )  # fmt: skip
        finally:
            close_all(connections)
        if members.unreached:
            raise combine_errors(members.unreached)

    def prepare(self, cluster: OpenCluster, previous: RunSpec, spec: RunSpec) -> ClusterResume:
        """`spec`: `previous` with what is to change."""
        run = RemoteRun(cluster.runs, self._name)
        if not run.exists():
            self._push_record(run, cluster, spec)
        elif self._is_already_running(run):
            return ClusterResume(run, None)
        if not is_resumable(run, extends=self._extend is not None):
            return ClusterResume(run, cluster, is_finished=True)
        if spec.recipe.data.mirror != previous.recipe.data.mirror:
            with cluster.stages.measure("text"):  # a folder is this machine's; other text is there
                source = spec.recipe.data.model_copy(update={"validation": None})
                uploaded = cluster.send_text(source, Path(previous.folder))
                spec = spec.with_changes(text=run.folder.spec().text | uploaded)
        if message := describe_extension(previous, spec):
            self._notify(message)
        self._require_rows_for_all(cluster, previous)
        spec = cluster.assign_nodes(spec, previous.tuning)
        old_nodes, new_nodes = _describe_shares(previous.nodes), _describe_shares(spec.nodes)
        if old_nodes != new_nodes:
            self._notify(
                f"run '{self._address}' was on {old_nodes} and goes on on {new_nodes}: "
                "the same rows in the same order, losses equal within rounding"
            )
        entered = time.time() + cluster.head_clock_offset_seconds
        spec = spec.with_changes(entered=entered, waits=True)
        run.update_spec(**spec.changes_since(previous))
        self._notify(describe_position(run))
        return ClusterResume(run, cluster)

    def _push_record(self, run: RemoteRun, cluster: OpenCluster, spec: RunSpec) -> None:
        checkpoint = find_record(run, list(cluster.connections.values()))
        with cluster.stages.measure("text"):
            text = cluster.send_text(spec.recipe.data, Path(run.folder.spec().folder))
        with cluster.stages.measure("send back"), self._observer:
            push_run(
                cluster.runs.head, run.folder, checkpoint, run.path, {"text": text},
                self._observer.show_transfer,
            )  # fmt: skip

    def _require_rows_for_all(self, cluster: OpenCluster, spec: RunSpec) -> None:
        """Raise ConfigError if a node that the cluster has now would get no row of a step."""
        recipe = apply_overrides(spec, self._settings)
        # `workers` was the number of other nodes.
        one_worker = recipe.recipe.model_copy(update={"workers": 1})
        shares = cluster.shares(spec.tuning)
        require_rows_for_all(replace(recipe, recipe=one_worker), cluster.spec.cluster, shares)

    def retry_until_answered(self, call: Callable[[], Result]) -> Result:
        """Return what `call` returns once the hosts answer. If nobody waits, errors name --wait."""
        failures = 0
        while True:
            try:
                time.sleep(RECONNECT_BACKOFF.seconds(failures))
                result = call()
            except KeyboardInterrupt:
                if not failures:
                    raise
                message = f"run '{self._address}' is as it was: not resumed from here"
                raise Interrupted(message) from None
            except (HostError, HostsFailed) as error:
                if not self._waits:
                    raise self.suggest_wait(error) from None
                if not _is_transient(error, booting=failures > 0):
                    raise
                if not failures:
                    self._notify(f"{error.message}; waiting for it (Ctrl-C ends that)")
                failures += 1
            else:
                if failures:
                    self._notify("it answers")
                return result

    def suggest_wait(self, error: HostError | HostsFailed) -> LaunchError:
        """Add --wait to what helps, if it does."""
        if not self._waits and _is_transient(error, booting=False):
            command = f"launch resume {self._address} --wait   goes on as soon as it answers"
            error.fix = "\n".join(filter(None, (error.fix, command)))
        return error


def _is_transient(error: HostError | HostsFailed, *, booting: bool) -> bool:
    """Whether a host that does not answer now may do so later. One that is just booting refuses
    logins for a while."""
    errors = error.errors if isinstance(error, HostsFailed) else (error,)
    transient = (*TRANSIENT_ERRORS, LoginRefused) if booting else TRANSIENT_ERRORS
    return all(isinstance(host_error, transient) for host_error in errors)


def _describe_shares(nodes: Sequence[RunNode]) -> str:
    """Name the nodes, with their shares if these differ."""
    equal = len({node.share / node.ranks_per_node for node in nodes}) == 1
    return ", ".join(node.name + ("" if equal else f" (share {node.share:g})") for node in nodes)
