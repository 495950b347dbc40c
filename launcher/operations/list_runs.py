"""Every run that this machine knows of, on it and on clusters."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from launcher.errors import InputError, LaunchError
from launcher.operations.notify import Notify, ignore
from launcher.operations.run_address import last_used_file
from launcher.runs.folder import RunFolder, all_mirrors, all_runs
from launcher.runs.state import RunState

ANSWER_SECONDS = 4.0  # for all clusters together: this is a list, not a search


def list_runs(cluster: str | None = None, *, notify: Notify = ignore) -> list[RunState]:
    """List the runs of a cluster, as its head says; of this machine with `local`.

    Without a cluster: those of this machine, and those of clusters that it has seen. Clusters with
    runs that were not seen to end are asked, and shown as they were seen last if they do not
    answer soon.
    """
    if cluster not in (None, "local"):
        assert cluster is not None
        return _query_head(cluster, notify)
    states = [state for run in all_runs() if (state := _find_state(run, notify)) is not None]
    return states if cluster == "local" else [*states, *_cluster_states(all_mirrors(), notify)]


def _find_state(folder: RunFolder, notify: Notify, alive: bool | None = None) -> RunState | None:
    """None if it has been removed meanwhile, or cannot be read, which `notify` says then."""
    try:
        return RunState.of(folder, alive)
    except InputError as error:
        if folder.exists():
            notify(f"left out: {error.message}")
    except OSError as error:
        notify(f"left out: {error.filename or folder.path} cannot be read: {error.strerror}")
    return None


def _cluster_states(mirrors: Sequence[RunFolder], notify: Notify) -> list[RunState]:
    to_ask = {_cluster_of(mirror) for mirror in mirrors if mirror.summary() is None}
    answers: dict[str, dict[str, RunState]] = {}

    def ask(cluster: str) -> None:
        try:
            states = _query_head(last_used_file(cluster), ignore)  # the mirrors' say it
            answers[cluster] = {state.run: state for state in states}
        except InputError:  # no file, or nothing there any more
            answers[cluster] = {}
        except LaunchError:
            return

    threads = [threading.Thread(target=ask, args=(cluster,), daemon=True) for cluster in to_ask]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + ANSWER_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    for cluster in sorted(to_ask - answers.keys()):
        notify(f"{cluster} does not answer: its runs as they were seen last")
    states = []
    for mirror in mirrors:
        cluster = _cluster_of(mirror)
        state = answers.get(cluster, {}).get(mirror.name) or _find_state(mirror, notify)
        if state is None:
            continue
        if state.status == "unknown" and cluster in answers:
            state = replace(state, status="gone")
        states.append(state)
    return states


def _cluster_of(mirror: RunFolder) -> str:
    return mirror.path.parents[1].name


def _query_head(cluster: str, notify: Notify) -> list[RunState]:
    from launcher.config.cluster_file import load_cluster  # paramiko and YAML: 0.2 s
    from launcher.remote.cluster_runs import RemoteRun
    from launcher.remote.open_runs import open_cluster_runs

    with open_cluster_runs(load_cluster(cluster)) as runs:
        running = runs.running()
        states = []
        for name in runs.names():
            run = RemoteRun(runs, name)
            run.mirror.update(runs.head)
            # Without a run.json another client is just making it.
            state = _find_state(run.folder, notify, alive=name in running)
            if state is not None:
                states.append(state)
    return states
