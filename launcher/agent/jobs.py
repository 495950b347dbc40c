"""Runs as Ray jobs, on the head: `python -P -m launcher.agent.jobs VERB FOLDER [RUN]`.

The client runs this over SSH and needs no Ray; nor does this: it speaks HTTP to the dashboard on
the loopback, which takes 0.35 s where Ray's own client imports for 2 s. Each verb prints one JSON
document. Whoever dies, a run that was submitted goes on until it has ended: see `run_restarter`.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.errors import InputError
from launcher.raycluster.environment import JOB_VARIABLE
from launcher.raycluster.spec import ClusterSpec
from launcher.runs.folder import DISK_FULL_BYTES, RunFolder
from launcher.runs.metric import read_metrics
from launcher.runs.submission import Submission
from nanochat.disk_space import free_bytes
from nanochat.errors import root_cause
from nanochat.lock import LockHeld, hold_lock, is_held

HTTP_SECONDS = 30.0
ERROR_CHARACTERS = 500
AGENT_SECONDS = 40.0  # from Ray's first answer until it takes jobs, on a host that has just booted
NO_AGENT_MESSAGE = "No available agent"  # says it until then
ALIVE_STATUSES = ("PENDING", "RUNNING")


class DashboardError(Exception):
    """Ray's dashboard does not answer, or not as it should."""


class Jobs:
    """The jobs of one cluster. `folder`: the cluster's folder on the head."""

    def __init__(self, folder: Path) -> None:
        spec = ClusterSpec.from_bytes((folder / "cluster.json").read_bytes())
        self._url = f"http://127.0.0.1:{spec.ports.dashboard}"
        self._folder = folder

    def submit(self, run: str) -> dict[str, Any]:
        """Start the run's driver, unless one is at work or about to be. Raises DashboardError."""
        folder = self._run_folder(run)
        with hold_lock(folder.path / "submit.lock", seconds=HTTP_SECONDS):
            if self.status(run)["alive"]:
                return {"submitted": False}
            # Remove the files of an earlier driver: a client that follows the run would otherwise
            # think that the run has ended.
            for stale in (folder.stop_request, folder.summary_file, folder.failure_file):
                stale.unlink(missing_ok=True)
            submission = Submission(
                time=time.time(), started_by_supervisor=False, starts=1, step=steps_made(folder)
            )
            submission.write(folder.submission_file)
            try:
                self._start(run, folder)
            except DashboardError:  # the user is told: nothing begins behind their back
                folder.submission_file.unlink()
                raise
        return {"submitted": True}

    def resubmit(self, run: str, starts: int) -> bool:
        """The same for a run whose driver died without a word; `starts`: in a row now without a new
        step. False where it has ended, or a driver is at work. Raises DashboardError, LockHeld."""
        folder = self._run_folder(run)
        with hold_lock(folder.path / "submit.lock", seconds=HTTP_SECONDS):
            # In this order: a driver that ends writes its summary first.
            if self.has_driver(run) or not folder.needs_driver or folder.stop_request.exists():
                return False
            previous = folder.submission()
            submission = Submission(
                time=previous.time,
                started_by_supervisor=True,
                starts=starts,
                step=steps_made(folder),
            )
            submission.write(folder.submission_file)
            try:
                folder.update_spec(entered=time.time())
                self._start(run, folder)
            except (DashboardError, OSError, InputError):  # that was no start
                previous.write(folder.submission_file)
                raise
        return True

    def _start(self, run: str, folder: RunFolder) -> None:
        """Raises DashboardError."""
        python, path, log = (shlex.quote(str(x)) for x in (sys.executable, folder.path, folder.log))
        job = {
            "submission_id": _submission_id(run, 1 + len(_run_jobs(self._list_jobs_if_up(), run))),
            "entrypoint": f"exec {python} -P -m launcher.training.driver {path} >> {log} 2>&1",
            "runtime_env": {"env_vars": {JOB_VARIABLE: "1"}},
        }
        deadline = time.monotonic() + AGENT_SECONDS
        while True:
            try:
                self._request("POST", "/api/jobs/", job)
                return
            except DashboardError as error:
                if NO_AGENT_MESSAGE not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def status(self, run: str) -> dict[str, Any]:
        """`alive`: a driver is at work, or Ray or the supervisor is about to start one. `wanted`:
        so it would be if a supervisor were at work. `by_itself`: nobody asked for this driver."""
        folder = self._run_folder(run)
        # The lock first: Ray is slow to answer while a step is made.
        has_driver = folder.is_locked() or _is_alive(_run_jobs(self._list_jobs_if_up(), run))
        is_due = self.is_restart_due(folder)
        return {
            "alive": has_driver or is_due,
            "wanted": folder.needs_driver,
            "by_itself": folder.submission().started_by_supervisor or (is_due and not has_driver),
        }

    def has_driver(self, run: str) -> bool:
        """Whether one is at work, or Ray is about to start it. Raises DashboardError."""
        if self._run_folder(run).is_locked():
            return True  # without asking Ray, which is slow while a step is made
        return _is_alive(_run_jobs(self._list_jobs(), run))

    def is_restart_due(self, folder: RunFolder) -> bool:
        """Whether the supervisor sees to it that a driver is at work. On a full disk none can."""
        has_room = free_bytes(self._folder) >= DISK_FULL_BYTES
        return folder.needs_driver and is_held(self._folder / "lock") and has_room

    def _run_folder(self, run: str) -> RunFolder:
        return RunFolder(self._folder / "runs" / run)

    def running(self) -> list[str]:
        """Runs whose drivers are at work, or about to be."""
        folders = [RunFolder(path) for path in sorted((self._folder / "runs").glob("*"))]
        names = [f.name for f in folders if f.is_locked() or self.is_restart_due(f)]
        # Ray starts a driver seconds after it was asked to; one that has ended wrote a summary.
        unfinished = [f.name for f in folders if f.name not in names and f.summary() is None]
        jobs = self._list_jobs_if_up() if unfinished else {}
        names += [name for name in unfinished if _is_alive(_run_jobs(jobs, name))]
        return sorted(names)

    def _list_jobs_if_up(self) -> dict[str, dict[str, Any]]:
        """Every job by its submission id; none where no dashboard answers."""
        try:
            return self._list_jobs()
        except DashboardError:
            return {}

    def _list_jobs(self) -> dict[str, dict[str, Any]]:
        return {job.get("submission_id"): job for job in self._request("GET", "/api/jobs/")}

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the JSON of the answer. Raises DashboardError."""
        import requests  # 0.1 s and 10 MB: not in the supervisors of hosts that are no head

        token = (self._folder / "token").read_text().strip()
        try:
            with requests.Session() as session:
                session.trust_env = False  # whatever http_proxy says: it is on the loopback
                answer = session.request(
                    method, self._url + path, json=body, timeout=HTTP_SECONDS,
                    headers={"Authorization": f"Bearer {token}"},
                )  # fmt: skip
            if not answer.ok:
                reason = f"{answer.status_code} {answer.reason}: {answer.text[:ERROR_CHARACTERS]}"
                raise DashboardError(f"Ray's dashboard: {reason}")
            return answer.json() if answer.content else {}
        except (requests.RequestException, ValueError) as error:  # refused, reset, too slow
            raise DashboardError(f"Ray's dashboard does not answer: {root_cause(error)}") from None


def steps_made(folder: RunFolder) -> int:
    """The most that any attempt has made, saved or not."""
    return max((metric.step for metric in read_metrics(folder.metrics)), default=0)


def _run_jobs(jobs: Mapping[str, dict[str, Any]], run: str) -> list[dict[str, Any]]:
    """The run's jobs, the newest last. One that was resumed has had several."""
    matching: list[dict[str, Any]] = []
    while (name := _submission_id(run, len(matching) + 1)) in jobs:
        matching.append(jobs[name])
    return matching


def _is_alive(jobs: Sequence[Mapping[str, Any]]) -> bool:
    """Check whether the last of a run's jobs is running or about to start."""
    return bool(jobs) and jobs[-1].get("status") in ALIVE_STATUSES


def _submission_id(run: str, attempt: int) -> str:
    """The run's name; a resumed one's has the attempt behind it. Ray takes no name twice."""
    return run if attempt == 1 else f"{run}:{attempt}"


def main(verb: str, folder: str, *run: str) -> None:
    jobs = Jobs(Path(folder))
    verbs: dict[str, Callable[..., Any]] = {
        "submit": jobs.submit,
        "status": jobs.status,
        "running": jobs.running,
    }
    try:
        print(json.dumps(verbs[verb](*run)))
    except DashboardError as error:
        raise SystemExit(str(error)) from None
    except LockHeld:
        raise SystemExit("the run is just being submitted by another process") from None


if __name__ == "__main__":
    main(*sys.argv[1:])
