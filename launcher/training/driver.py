"""The driver of a run: prepares text while Ray starts, trains, writes the end.

On one machine it is started below a driver reaper, on a cluster it is a Ray job on the head. It
works in the run's folder and holds the folder's lock, so that anyone sees whether the run is alive.
Where a client of this machine waits for it, the client's pipe is its standard input: when that
closes, the client is gone, and the run saves and stops.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from launcher.agent.processes import die_with_parent
from launcher.agent.text_store import stored_source
from launcher.config.paths import launch_home
from launcher.config.recipe import Recipe
from launcher.errors import HostsInUse, LaunchError
from launcher.raycluster.spec import ClusterSpec
from launcher.runs.events import (
    EventLog,
    FaultEvent,
    FinishEvent,
    ProgressEvent,
    StartEvent,
    TextEvent,
    WaitEvent,
)
from launcher.runs.failure import Failure
from launcher.runs.folder import RunFolder
from launcher.runs.spec import RunData
from launcher.runs.state import Status, summarize
from launcher.training.cluster_session import ClusterSession
from launcher.training.local_session import LocalSession
from launcher.training.session import RayLost, Session
from launcher.version import __version__
from nanochat.dataset.climbmix import CLIMBMIX, is_address
from nanochat.dataset.prepare import prepare
from nanochat.dataset.rows import PreparedData
from nanochat.dataset.sources import Source, climbmix_source, parse_source
from nanochat.errors import NanochatError

ORPHAN_SECONDS = 600.0  # for the step at hand and its checkpoint: d8 needs 110 s a step here
STOP_POLL_SECONDS = 0.2
PROGRESS_SECONDS = 0.5  # between two lines of progress


def main(run_folder: str, ray_folder: str | None = None) -> None:
    """Do what the run's run.json asks for; exit with the run's code.

    ray_folder: where a Ray of the run's own is to live; without it the run's cluster is joined.
    """
    folder = RunFolder(Path(run_folder))
    spec = folder.spec()
    recipe = spec.recipe
    session: Session
    if ray_folder is not None:
        die_with_parent()
        session = LocalSession(ray_folder, workers=recipe.workers)
    else:
        cluster = folder.path.parents[1]
        content = (cluster / "cluster.json").read_bytes()
        cluster_spec = ClusterSpec.from_bytes(content)
        session = ClusterSession(cluster, cluster_spec, spec.nodes, pool=spec.pool)
    with folder.locked():
        code = Driver(folder, recipe, session).run()
        sys.stdout.flush()
        os._exit(code)  # what Ray would do in 1.3 s more, the driver reaper or the cluster does


class Driver:
    def __init__(self, folder: RunFolder, recipe: Recipe, session: Session) -> None:
        for stale in (folder.failure_file, folder.summary_file):
            stale.unlink(missing_ok=True)
        self.folder = folder
        self.recipe = recipe
        self.session = session
        self.events = EventLog(folder.events)
        self._text_ready: Future[PreparedData] = Future()
        self._text_was_incomplete = False

    def run(self) -> int:
        if stat.S_ISFIFO(os.fstat(0).st_mode):  # a client waits at the other end
            threading.Thread(target=self._watch_client, daemon=True).start()
        signal.signal(signal.SIGTERM, self._exit_at_once)
        self.session.set_environment()
        try:
            threading.Thread(target=self._prepare_text, daemon=True).start()
            with ThreadPoolExecutor(1) as executor:
                imports = executor.submit(self._import_trainer)
                with self.stage("ray"):
                    self.session.connect()
                data = self._wait_for_text()
                imports.result()
            if data is None:
                return self._finish()
            self.folder.update_spec(
                data=self._verify_data(data),
                versions={name: version(name) for name in ("torch", "ray", "tiktoken")}
                | {"launch": __version__, "python": platform.python_version()},
            )
            stop_requested = self.folder.stop_request.exists
            with self.session.acquire_hosts(self.folder.name, self._on_wait, stop_requested):
                if not stop_requested():
                    failure = self.session.train_run(str(self.folder.path))
                    if failure is not None:
                        failure.write(self.folder.failure_file)
        except (LaunchError, NanochatError) as error:
            self._fail(error.message, error.fix)
        except RayLost as error:
            self._exit_for_restart(error)
        except Exception as error:
            traceback.print_exc()  # to log.txt, where the standard streams of a driver go
            self._fail(traceback.format_exception_only(error)[0].strip(), None)
        return self._finish()

    def _on_wait(self, other: str) -> None:
        """Write an event. Raises HostsInUse if the run was started with --no-wait."""
        if not self.folder.spec().waits:
            raise HostsInUse(other, fix="leave --no-wait out: it waits")
        self.events.write(WaitEvent.now(run=other))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Write how long a stage of the start took."""
        started_at = time.monotonic()
        yield
        seconds = round(time.monotonic() - started_at, 3)
        self.events.write(StartEvent.now(stage=name, seconds=seconds))

    def _import_trainer(self) -> None:
        """Beside the start of Ray, where this is the process that needs it."""
        if self.session.trains_in_process:
            with self.stage("imports"):
                import launcher.training.trainer  # noqa: F401

    def _wait_for_text(self) -> PreparedData | None:
        """Return the text as soon as training can begin. None if a stop was requested before."""
        while not self.folder.stop_request.exists():
            if wait([self._text_ready], timeout=STOP_POLL_SECONDS).done:
                return self._text_ready.result()
        return None

    def _prepare_text(self) -> None:
        """All of it: what is not there when training begins is prepared beside it."""
        try:
            data = self._prepare(started_at=time.monotonic())
        except Exception as error:
            if not self._text_ready.done():
                self._text_ready.set_exception(error)
            else:  # workers that need more than there is find out, and say why
                reason = error.message if isinstance(error, NanochatError) else str(error)
                message = f"{reason}; {self._describe_remaining_text()}"
                self.events.write(FaultEvent.now(what="text", message=message))
            return
        if self._text_was_incomplete:
            rows = len(data.train_rows)
            self.events.write(TextEvent.now(message=f"all text is prepared: {rows:,} rows"))

    def _describe_remaining_text(self) -> str:
        """Say how far the prepared rows reach, if no more will follow."""
        rows = len(PreparedData.load(self._text_ready.result().path).train_rows)
        steps = rows // self.recipe.rows_per_step
        if steps >= self.recipe.steps_total:
            return "the text that is there is enough for this run"
        return f"the text that is there lasts until step {steps:,}"

    def _prepare(self, started_at: float) -> PreparedData:
        data = self.recipe.data
        spec = self.folder.spec()
        base = Path(spec.folder)
        uploaded = spec.text  # files of the client, stored on the head
        cache = launch_home() / "data"

        def source(key: str, name: str) -> Source:
            if uploaded.get(key) == CLIMBMIX:
                mirror = data.mirror if data.mirror and is_address(data.mirror) else None
                return climbmix_source(name, base, cache / CLIMBMIX, mirror)
            if key in uploaded:
                return stored_source(launch_home(), name, uploaded[key])
            return parse_source(name, base, shards=cache / CLIMBMIX, mirror=data.mirror)

        def on_ready(prepared: PreparedData) -> None:
            seconds = round(time.monotonic() - started_at, 3)
            message = self._describe_text(prepared)
            self.events.write(StartEvent.now(stage="data", seconds=seconds, message=message))
            self._text_was_incomplete = not prepared.manifest.complete
            self._text_ready.set_result(prepared)

        return prepare(
            source("source", data.source),
            cache=cache,
            sequence_length=self.recipe.sequence_length,
            vocab_size=self.recipe.vocab_size,
            validation=None if data.validation is None else source("validation", data.validation),
            threads=len(os.sched_getaffinity(0)),
            on_progress=_PreparationProgress(self.events, self._text_ready.done),
            on_ready=on_ready,
        )

    def _describe_text(self, prepared: PreparedData) -> str:
        train, held_out = len(prepared.train_rows), len(prepared.validation_rows)
        length = self.recipe.sequence_length
        if not prepared.manifest.complete:
            return (
                f"the first {train:,} rows of {length:,} tokens to train on, {held_out:,} to "
                "validate; the rest follows while the run goes on"
            )
        passes = self.recipe.steps_total * self.recipe.rows_per_step / train
        return f"{train:,} rows of {length:,} tokens to train on, {held_out:,} to validate" + (
            f"; each is read {passes:,.3g} times" if passes > 1 else ""
        )

    def _verify_data(self, prepared: PreparedData) -> RunData:
        """Return the run.json entry of the data.

        Raises LaunchError if the run is resumed and its text has changed.
        """
        data = RunData(folder=str(prepared.path), identity=prepared.identity())
        before = self.folder.spec().data
        if before is not None and before.identity != data.identity:
            from nanochat.checkpoint import identity_difference

            difference = identity_difference(before.identity, data.identity)
            raise LaunchError(
                f"the text of run '{self.folder.name}' is not what it began with:\n{difference}",
                fix="bring the old text back, or begin a new run",
            )
        shutil.copyfile(prepared.path / "tokenizer.json", self.folder.tokenizer)
        return data

    def _watch_client(self) -> None:
        sys.stdin.buffer.read()  # returns when the client has closed its end, or has died
        with contextlib.suppress(OSError):  # the folder may be gone with the client
            self.folder.stop_request.touch()
            message = "the client is gone: stopping"
            self.events.write(FaultEvent.now(what="client", message=message))
            time.sleep(ORPHAN_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    def _exit_at_once(self, *_: Any) -> None:
        if isinstance(self.session, ClusterSession):
            os._exit(1)  # nobody asked for it: its host shuts down, and it goes on after the boot
        try:
            summary = summarize(self.folder, "stopped")
            with contextlib.suppress(RuntimeError):  # in the middle of another line
                self.events.write(FinishEvent.now(status="stopped", step=summary.steps))
            summary.write(self.folder.summary_file)
        finally:  # Ray swallows what a signal's handler raises
            os._exit(1)

    def _exit_for_restart(self, error: RayLost) -> None:
        """Without a summary: the head's supervisor starts another driver."""
        traceback.print_exc()
        first_line = str(error).strip().partition("\n")[0]
        message = f"Ray let go of the driver: {first_line}"
        self.events.write(FaultEvent.now(what="ray", message=message))
        sys.stdout.flush()
        os._exit(1)

    def _fail(self, message: str, fix: str | None) -> None:
        Failure(message=message, fix=fix).write(self.folder.failure_file)

    def _finish(self) -> int:
        failure = self.folder.failure()
        # The last step's checkpoint is the last thing that training writes.
        finished = (self.folder.checkpoints / f"step-{self.recipe.steps_total:08d}").is_dir()
        status: Status = "failed" if failure is not None else "finished" if finished else "stopped"
        details = {} if failure is None else {"message": failure.message}
        summary = summarize(self.folder, status)
        self.events.write(FinishEvent.now(status=status, step=summary.steps, **details))
        # Last: who follows from another machine reads no further once it is there.
        summary.write(self.folder.summary_file)
        return 1 if failure else 0


class _PreparationProgress:
    """Writes the progress of data preparation as events, at most twice a second, until
    `is_ready()`; and obstacles at any time."""

    def __init__(self, events: EventLog, is_ready: Callable[[], bool]) -> None:
        self._events = events
        self._is_ready = is_ready
        self._written_at = 0.0

    def __call__(self, what: str, done: float, total: float | None, *, host: str = "") -> None:
        if total is None and what != "wait":
            self._events.write(FaultEvent.now(what="text", message=what))
        elif time.monotonic() - self._written_at > PROGRESS_SECONDS and not self._is_ready():
            self._written_at = time.monotonic()
            self._events.write(ProgressEvent.now(stage=what, done=done, total=total))


if __name__ == "__main__":
    main(*sys.argv[1:])
