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
from launcher.runs.record import Record
from launcher.runs.run import LocalRun, Run


class UsedFile(Record):
    """The cluster file with which a cluster was used last: used.json beside its mirrors."""

    file: str
    """Absolute path."""
    pool: str | None = None


@contextmanager
def open_run(name: str, cluster: str | None = None) -> Iterator[Run]:
    """The run of that name, connected to its cluster's head while the block lasts.

    Raises NotFound; InputError where the name fits runs of several clusters.
    """
    location, run_name = resolve_run(name, cluster)
    if location == "local":
        yield LocalRun(find_run(run_name))
        return
    from launcher.config.cluster_file import load_cluster  # paramiko and YAML: 0.2 s
    from launcher.remote.open_runs import open_cluster_runs

    with open_cluster_runs(load_cluster(location)) as runs:
        yield runs.find(run_name)


@contextmanager
def open_run_to_read(
    name: str, cluster: str | None = None, *, notify: Notify = ignore
) -> Iterator[Run]:
    """As `open_run`; if its cluster cannot be asked or has forgotten it, as it was seen last."""
    with ExitStack() as stack:
        try:
            run = stack.enter_context(open_run(name, cluster))
        except (HostError, HostsFailed, InputError) as error:
            mirror = find_mirror(*resolve_run(name, cluster))
            if mirror is None:
                raise
            notify(f"{error.message}\nshown as it was seen last")
            run = mirror
        yield run


def find_mirror(cluster: str, name: str) -> LocalRun | None:
    """Return the mirror of a cluster's run. `cluster`: a name or a file, as of `resolve_run`."""
    cluster = str(Path(cluster).absolute()) if is_path(cluster) else cluster
    for folder in all_mirrors():
        mirror_cluster = folder.path.parents[1].name
        if folder.name == name and cluster in (mirror_cluster, last_used_file(mirror_cluster)):
            return LocalRun(folder, mirror_cluster)
    return None


def resolve_run(name: str, cluster: str | None) -> tuple[str, str]:
    """(cluster's name or file, bare name). C/RUN means what `--cluster C` does; from where there is
    no file of that name, the one that C was last used with. A name without a cluster is looked for
    among all runs known here. Raises InputError where there are several, or C is another cluster
    than the option's."""
    named_cluster, _, run_name = name.rpartition("/")
    if cluster is not None and named_cluster and not _is_same_cluster(cluster, named_cluster):
        message = f"'{name}' is a run of {named_cluster}, --cluster says {cluster}"
        raise InputError(message, fix="leave one of them out")
    if cluster is not None:
        return cluster, run_name
    if named_cluster:
        own_files = [f for f in list_config_files("cluster") if f.origin != "shipped"]
        has_file = any(file.name == named_cluster for file in own_files)
        return (named_cluster if has_file else last_used_file(named_cluster)), run_name
    clusters = _clusters_with_run(name)
    if len(clusters) > 1:
        addresses = " or ".join(f"{cluster_name}/{name}" for cluster_name in clusters)
        raise InputError(f"several runs are named '{name}'", fix=f"say which: {addresses}")
    return (last_used_file(clusters[0]) if clusters else "local"), name


def _is_same_cluster(cluster: str, named_cluster: str) -> bool:
    """Whether --cluster CLUSTER, a name or a file, means the C of C/RUN. Raises NotFound or
    ConfigError for the file."""
    if named_cluster == cluster:
        return True
    from launcher.config.cluster_file import load_cluster  # YAML and pydantic: 0.2 s

    return load_cluster(cluster).cluster.name == named_cluster


def _clusters_with_run(name: str) -> list[str]:
    """`local` and clusters that a run of that name is known of here."""
    if not RUN_NAME.fullmatch(name):
        return []
    folders = sorted((launch_home() / "clusters").glob("*"))
    clusters = [path.name for path in folders if (path / "runs" / name / "run.json").exists()]
    return ["local", *clusters] if (runs_home() / name / "run.json").exists() else clusters


def last_used_file(cluster: str) -> str:
    """The file that this cluster was last used with, where it is still there; else its name."""
    used = UsedFile.read(launch_home() / "clusters" / cluster / USED_FILE)
    if used is None or not Path(used.file).is_file():
        return cluster
    return f"{used.file}.{used.pool}" if used.pool else used.file
