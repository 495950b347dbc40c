"""Which runs a head's supervisor starts again, when, and when not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from records import append_events, append_metrics, make_folder, make_metric, make_summary
from test_raycluster import HEAD

from launcher.agent.jobs import DashboardError, Jobs
from launcher.agent.run_restarter import MAX_STARTS, RunRestarter
from launcher.runs.events import FinishEvent, RestartEvent, WaitEvent, read_events
from launcher.runs.folder import RunFolder
from launcher.runs.submission import Submission
from nanochat.backoff import Backoff
from nanochat.lock import hold_lock


class Cluster:
    """A head's folder, and a Ray that takes jobs and loses them."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        path.mkdir(exist_ok=True)
        (path / "cluster.json").write_bytes(HEAD.to_bytes())
        self.jobs: dict[str, str] | None = {}  # None: its dashboard does not answer
        self.run_restarter = RunRestarter(path)
        self.run_restarter.set_ray_state(up=True)
        monkeypatch.setattr(Jobs, "_request", lambda jobs, *request: self._ask(*request))
        monkeypatch.setattr("launcher.agent.run_restarter.RESTART_BACKOFF", Backoff(0.0, 0.0))

    def run(self, name: str, *, submitted: bool = True) -> RunFolder:
        folder = make_folder(self.path / "runs" / name, cluster="home", nodes=HEAD.nodes)
        if submitted:
            Jobs(self.path).submit(name)
            self.jobs = {}
        return folder

    def refuse(self) -> None:
        raise DashboardError("500")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        if self.jobs is None:
            raise DashboardError("no dashboard")
        if body is not None:
            self.jobs[body["submission_id"]] = "PENDING"
        return [{"submission_id": name, "status": status} for name, status in self.jobs.items()]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with hold_lock(tmp_path / "lock"):  # as its supervisor
        yield Cluster(tmp_path, monkeypatch)


def check_all(run_restarter: RunRestarter) -> None:
    for folder in run_restarter.unfinished_runs():
        run_restarter.check_run(folder)


def step(folder: RunFolder, number: int) -> None:
    append_metrics(folder, make_metric(number))


def restarts(folder: RunFolder) -> list[RestartEvent]:
    """All events, which are restarts."""
    events = read_events(folder.events)
    found = [event for event in events if isinstance(event, RestartEvent)]
    assert len(found) == len(events)
    return found


def test_a_run_whose_driver_died_goes_on(cluster: Cluster) -> None:
    folder = cluster.run("night")
    step(folder, 3)
    check_all(cluster.run_restarter)
    assert cluster.jobs == {"night": "PENDING"}
    [event] = restarts(folder)
    assert (event.kind, event.stage) == ("restart", "driver") and event.seconds >= 0
    assert Jobs(cluster.path).status("night") == {
        "alive": True, "wanted": True, "by_itself": True
    }  # fmt: skip
    check_all(cluster.run_restarter)  # Ray is about to start it
    assert cluster.jobs == {"night": "PENDING"}


def test_what_died_is_told_apart(cluster: Cluster) -> None:
    """By whether the run has written since Ray began, and how often that did."""
    folder = cluster.run("night")
    check_all(cluster.run_restarter)
    for starts in (1, 2):
        cluster.jobs = {}
        if starts == 1:
            cluster.run_restarter.set_ray_state(up=False)
        cluster.run_restarter.set_ray_state(up=True)
        check_all(cluster.run_restarter)
    assert [event.what for event in restarts(folder)] == ["driver", "ray", "ray"]
    other = RunRestarter(cluster.path)
    other.set_ray_state(up=True)
    cluster.jobs = {}
    check_all(other)
    assert restarts(folder)[-1].what == "head"


@pytest.mark.parametrize("why", ["never submitted", "ended", "no Ray", "at work", "no dashboard"])
def test_what_does_not_go_on(cluster: Cluster, why: str) -> None:
    folder = cluster.run("mine", submitted=why != "never submitted")
    if why == "ended":
        make_summary(status="failed").write(folder.summary_file)
    if why == "no Ray":
        cluster.run_restarter.set_ray_state(up=False)
    if why == "at work":
        with hold_lock(folder.path / "lock"):
            check_all(cluster.run_restarter)
    elif why == "no dashboard":  # it may have a driver: that is found out before
        cluster.jobs = None
        with pytest.raises(DashboardError):
            check_all(cluster.run_restarter)
        assert folder.submission().starts == 1
    else:
        check_all(cluster.run_restarter)
    assert not cluster.jobs and not folder.events.exists()
    assert [f.name for f in cluster.run_restarter.unfinished_runs()] == (
        ["mine"] if why not in ("never submitted", "ended") else []
    )


def test_one_that_is_to_stop_has_ended(cluster: Cluster) -> None:
    """Also while Ray is not up: nobody waits for that."""
    folder = cluster.run("mine")
    step(folder, 3)
    cluster.run_restarter.set_ray_state(up=False)
    folder.stop_request.touch()
    assert Jobs(cluster.path).running() == ["mine"]
    check_all(cluster.run_restarter)
    summary = folder.summary()
    assert summary is not None and (summary.status, summary.steps) == ("stopped", 3)
    assert Jobs(cluster.path).running() == []


def test_it_is_given_up_where_no_step_is_new(cluster: Cluster) -> None:
    folder = cluster.run("sick")
    step(folder, 3)
    for _ in range(2 * MAX_STARTS):
        cluster.jobs = {}
        check_all(cluster.run_restarter)
    events = read_events(folder.events)
    assert len(events) == MAX_STARTS + 1  # step 3 was new, and the end is told
    assert isinstance(events[-1], FinishEvent) and events[-1].status == "failed"
    failure = folder.failure()
    assert failure is not None and failure.fix == f"see {folder.log}"
    assert f"{MAX_STARTS} times in a row without a new step" in failure.message
    Jobs(cluster.path).submit("sick")  # `launch resume`
    assert folder.needs_driver and folder.submission().starts == 1


def test_a_start_that_ray_did_not_take_is_none(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cluster.run("night")
    before = folder.submission()
    monkeypatch.setattr(Jobs, "_start", lambda *_: cluster.refuse())
    for _ in range(2 * MAX_STARTS):
        with pytest.raises(DashboardError):
            check_all(cluster.run_restarter)
    assert folder.needs_driver and folder.submission() == before and not folder.events.exists()


def test_a_client_submits_as_soon_as_ray_takes_jobs(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cluster.run("first", submitted=False)
    answers = [DashboardError("Ray's dashboard: 500: No available agent to submit job")]
    take = cluster._ask

    def ask(jobs: Jobs, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        if body is not None and answers:
            raise answers.pop()
        return take(method, path, body)

    monkeypatch.setattr(Jobs, "_request", ask)
    assert Jobs(cluster.path).submit("first") == {"submitted": True}
    assert not answers and folder.needs_driver and cluster.jobs == {"first": "PENDING"}
    cluster.jobs = None  # what nobody has taken does not begin behind the user's back
    folder.submission_file.unlink()
    with pytest.raises(DashboardError):
        Jobs(cluster.path).submit("first")
    assert not folder.needs_driver


def test_a_new_step_starts_the_count_anew(cluster: Cluster) -> None:
    folder = cluster.run("night")
    for number in range(2 * MAX_STARTS):
        step(folder, number + 1)
        cluster.jobs = {}
        check_all(cluster.run_restarter)
    assert folder.needs_driver and folder.submission().starts == 1


def test_who_waited_for_its_turn_waits_again(cluster: Cluster) -> None:
    """Until the run that had the hosts has them back."""
    waiting = cluster.run("later")
    append_events(waiting, WaitEvent.now(run="night"))
    cluster.run("night")
    check_all(cluster.run_restarter)
    assert cluster.jobs == {"night": "PENDING"}
    (cluster.path / "slots").mkdir()
    with hold_lock(cluster.path / "slots" / f"{HEAD.nodes[0].name}.lock"):
        check_all(cluster.run_restarter)
    assert set(cluster.jobs) == {"night", "later"}


def test_without_a_supervisor_nothing_is_about_to_start(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_bytes(HEAD.to_bytes())
    (tmp_path / "token").write_text("t")
    folder = make_folder(tmp_path / "runs" / "night", run="night")
    Submission(time=1.0, started_by_supervisor=False, starts=1, step=0).write(
        folder.submission_file
    )
    jobs = Jobs(tmp_path)  # and no dashboard answers
    assert jobs.status("night") == {"alive": False, "wanted": True, "by_itself": False}
    assert jobs.running() == []
