"""The toolkit: from `launch recipe d8 --cluster cpu2` to a trained model.

What a program can do with it, loaded when it is first used:

    import launcher

    address = launcher.start_run("d4", steps=100)
    with launcher.open_run(address) as run:
        for update in launcher.Follower(run).until_end():
            for metric in update.metrics:
                print(metric.step, metric.loss)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.version import __version__ as __version__

if TYPE_CHECKING:
    from launcher.config.cluster_file import load_cluster as load_cluster
    from launcher.config.recipe import load_recipe as load_recipe
    from launcher.errors import LaunchError as LaunchError
    from launcher.operations.await_run import await_run as await_run
    from launcher.operations.check_cluster import check_cluster as check_cluster
    from launcher.operations.list_runs import list_runs as list_runs
    from launcher.operations.open_cluster import open_cluster as open_cluster
    from launcher.operations.resume_run import resume_run as resume_run
    from launcher.operations.run_address import open_run as open_run
    from launcher.operations.run_address import open_run_to_read as open_run_to_read
    from launcher.operations.start_run import start_run as start_run
    from launcher.operations.stop_run import stop_run as stop_run
    from launcher.runs.follow import Follower as Follower

_PUBLIC = {
    "Follower": "launcher.runs.follow",
    "LaunchError": "launcher.errors",
    "await_run": "launcher.operations.await_run",
    "check_cluster": "launcher.operations.check_cluster",
    "list_runs": "launcher.operations.list_runs",
    "load_cluster": "launcher.config.cluster_file",
    "load_recipe": "launcher.config.recipe",
    "open_cluster": "launcher.operations.open_cluster",
    "open_run": "launcher.operations.run_address",
    "open_run_to_read": "launcher.operations.run_address",
    "resume_run": "launcher.operations.resume_run",
    "start_run": "launcher.operations.start_run",
    "stop_run": "launcher.operations.stop_run",
}


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'launcher' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
