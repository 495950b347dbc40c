"""Runs as Ray jobs, on the head: `python -P -m launcher.raycluster.jobs VERB FOLDER [RUN]`.

The client runs this over SSH and needs no Ray; nor does this: it speaks HTTP to the dashboard on
the loopback, which takes 0.2 s where Ray's own client imports for 2 s. Each verb prints one JSON
document.
"""

from __future__ import annotations

import json
import shlex
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.raycluster.environment import JOB_MARK
from launcher.raycluster.spec import ClusterSpec
from launcher.runs.folder import RunFolder

HTTP_SECONDS = 30.0
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever http_proxy says
ALIVE = ("PENDING", "RUNNING")


class Jobs:
    """Of one cluster, whose folder on the head is `folder`."""

    def __init__(self, folder: Path) -> None:
        spec = ClusterSpec.from_json((folder / "cluster.json").read_bytes())
        self._url = f"http://127.0.0.1:{spec.ports.dashboard}"
        self._token = (folder / "token").read_text().strip()
        self._folder = folder

    def submit(self, run: str) -> dict[str, Any]:
        """Start the run's driver, unless one is at work."""
        folder = RunFolder(self._folder / "runs" / run)
        if self.status(run)["alive"]:
            return {"submitted": False}
        # Of an earlier attempt; a client that follows would take its end for this one's.
        for stale in (folder.stop_request, folder.summary_file, folder.failure_file):
            stale.unlink(missing_ok=True)
        python, path, log = (shlex.quote(str(x)) for x in (sys.executable, folder.path, folder.log))
        job = {
            "submission_id": _submission_id(run, 1 + len(_of(self._all(), run))),
            "entrypoint": f"exec {python} -P -m launcher.training.driver {path} >> {log} 2>&1",
            "runtime_env": {"env_vars": {JOB_MARK: "1"}},
        }
        self._ask("POST", "/api/jobs/", job)
        return {"submitted": True}

    def status(self, run: str) -> dict[str, Any]:
        """Whether the driver is at work, or Ray is about to start it."""
        if RunFolder(self._folder / "runs" / run).is_locked():
            return {"alive": True}  # without asking Ray, which is slow while a step is made
        return {"alive": _is_alive(_of(self._all(), run))}

    def running(self) -> list[str]:
        """Runs whose drivers are at work, or about to be."""
        folders = [RunFolder(path) for path in sorted((self._folder / "runs").glob("*"))]
        names = [folder.name for folder in folders if folder.is_locked()]
        # Ray starts a driver seconds after it was asked to; one that has ended wrote a summary.
        open_ends = [f.name for f in folders if f.name not in names and f.summary() is None]
        jobs = self._all() if open_ends else {}
        names += [name for name in open_ends if _is_alive(_of(jobs, name))]
        return sorted(names)

    def _all(self) -> dict[str, dict[str, Any]]:
        """Every job by its submission id."""
        return {job.get("submission_id"): job for job in self._ask("GET", "/api/jobs/") or []}

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON of the answer; None for 404, and where no dashboard answers."""
        request = urllib.request.Request(
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        try:
            with DIRECT.open(request, timeout=HTTP_SECONDS) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise SystemExit(f"Ray's dashboard: {error}: {error.read().decode()[:500]}") from None
        except OSError as error:  # refused, reset, or slower than HTTP_SECONDS
            if method == "GET":
                return None
            raise SystemExit(f"Ray's dashboard does not answer: {error}") from None


def _of(jobs: Mapping[str, dict[str, Any]], run: str) -> list[dict[str, Any]]:
    """The run's jobs, the newest last. One that was resumed has had several."""
    found: list[dict[str, Any]] = []
    while (name := _submission_id(run, len(found) + 1)) in jobs:
        found.append(jobs[name])
    return found


def _is_alive(jobs: Sequence[Mapping[str, Any]]) -> bool:
    """Of one run."""
    return bool(jobs) and jobs[-1].get("status") in ALIVE


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
    print(json.dumps(verbs[verb](*run)))


if __name__ == "__main__":
    main(*sys.argv[1:])
