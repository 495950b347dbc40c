"""Find and read cluster files."""

from __future__ import annotations

from pathlib import Path

from launcher.config.cluster import Cluster
from launcher.config.loaded_cluster import LoadedCluster
from launcher.config.paths import find_config_file, format_path, is_path, list_config_files
from launcher.config.subcluster import require_subcluster
from launcher.config.validation import validate
from launcher.config.yaml_source import read_yaml
from launcher.errors import InputError, NotFound


def find_cluster(name_or_path: str) -> Path:
    """A cluster's file by its own name, else by the `name:` in it, else by path.

    Raises NotFound with the nearest names.
    """
    try:
        return find_config_file("cluster", name_or_path)
    except NotFound:
        for file in list_config_files("cluster"):
            if _name_in(file.path) == name_or_path:
                return file.path
        raise


def load_cluster(name_or_path: str) -> LoadedCluster:
    """Reads and checks a cluster's file. CLUSTER.POOL is a pool with a head of its own.

    Raises NotFound, or ConfigError with all problems.
    """
    try:
        path = find_cluster(name_or_path)
    except NotFound:
        whole, _, pool = name_or_path.rpartition(".")
        try:
            loaded = load_cluster(whole) if whole else None
        except NotFound:
            loaded = None
        if loaded is None:
            raise
        return require_subcluster(loaded, pool)
    cli_name = format_path(path) if is_path(name_or_path) else name_or_path
    source = read_yaml(path, fix=f"launch edit cluster {cli_name}")
    source.set_default("name", path.stem)
    cluster = validate(Cluster, source)
    return LoadedCluster(cluster.name, path, cluster, source, cli_name, cluster.nodes)


def _name_in(path: Path) -> str | None:
    try:
        return read_yaml(path).data.get("name")
    except InputError:
        return None
