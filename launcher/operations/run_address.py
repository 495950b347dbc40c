"""From RUN or CLUSTER/RUN, as a user names it, to the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from launcher.config.paths import is_path, launch_home, list_config_files
from launcher.errors import HostError, HostsFailed, InputError
from launcher.operations.notify import Notify, ignore
from launcher.runs.folder import (
    RUN_NAME,
    USED_FILE,
    all_mirrors,
    find_run,
    runs_home,
)
from launcher.runs.record import read_json
from launcher.runs.run import LocalRun, Run


@contextmanager
def open_run(name: str, cluster: str | None) -> Iterator[Run]:
    """The run of that name, connected to its cluster's head while the block lasts.

    Raises NotFound; InputError where the name fits runs of several clusters.
    """
    where, bare = resolve_run(name, cluster)
    if where == "local":
        yield LocalRun(find_run(bare))
        return
    from launcher.remote.open import open_cluster_runs  # paramiko and YAML: 0.2 s

    with open_cluster_runs(where) as runs:
        yield runs.find(bare)


@contextmanager
def open_run_to_read(name: str, cluster: str | None, *, notify: Notify = ignore) -> Iterator[Run]:
    """As `open_run`; if its cluster cannot be asked or has forgotten it, as it was seen last."""
    with ExitStack() as stack:
        try:
            run = stack.enter_context(open_run(name, cluster))
        except (HostError, HostsFailed, InputError) as error:
            seen = find_mirror(*resolve_run(name, cluster))
            if seen is None:
                raise
            notify(f"{error.message}\nshown as it was seen last")
            run = seen
        yield run


def find_mirror(where: str, name: str) -> LocalRun | None:
    """What is here of a cluster's run. `where`: as from `locate`."""
    where = str(Path(where).absolute()) if is_path(where) else where
    for folder in all_mirrors():
        cluster = folder.path.parents[1].name
        if folder.name == name and where in (cluster, last_used_file(cluster)):
            return LocalRun(folder, cluster)
    return None


def resolve_run(name: str, cluster: str | None) -> tuple[str, str]:
    """(cluster's name or file, bare name). C/RUN means what `--cluster C` does; from where there is
    no file of that name, the one that C was last used with. A name without a cluster is looked for
    among all runs known here. Raises InputError where there are several, or C is another cluster
    than the option's."""
    where, _, bare = name.rpartition("/")
    if cluster is not None and where and not _names(cluster, where):
        raise InputError(
            f"'{name}' is a run of {where}, --cluster says {cluster}", fix="leave one of them out"
        )
    if cluster is not None:
        return cluster, bare
    if where:
        named = any(f.name == where and f.origin != "shipped" for f in list_config_files("cluster"))
        return (where if named else last_used_file(where)), bare
    places = _places(name)
    if len(places) > 1:
        both = " or ".join(f"{place}/{name}" for place in places)
        raise InputError(f"several runs are named '{name}'", fix=f"say which: {both}")
    return (last_used_file(places[0]) if places else "local"), name


def _names(cluster: str, where: str) -> bool:
    """Whether --cluster CLUSTER, a name or a file, means the C of C/RUN. Raises NotFound or
    ConfigError for the file."""
    if where == cluster:
        return True
    from launcher.config.cluster_file import load_cluster  # YAML and pydantic: 0.2 s

    return load_cluster(cluster).cluster.name == where


def _places(name: str) -> list[str]:
    """`local` and clusters that a run of that name is known of here."""
    if not RUN_NAME.fullmatch(name):
        return []
    clusters = sorted((launch_home() / "clusters").glob("*"))
    places = [home.name for home in clusters if (home / "runs" / name / "run.json").exists()]
    return ["local", *places] if (runs_home() / name / "run.json").exists() else places


def last_used_file(cluster: str) -> str:
    """The file that this cluster was last used with, where it is still there; else its name."""
    used = read_json(launch_home() / "clusters" / cluster / USED_FILE)
    file, pool = (used or {}).get("file", ""), (used or {}).get("pool")
    if not file or not Path(file).is_file():
        return cluster
    return f"{file}.{pool}" if pool else file
