"""What this launcher put on a host for a cluster, and taking exactly that away again."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field

from launcher.provision.client_lock import LOCK_FILE, client_lock
from launcher.provision.host_plan import ROOT
from launcher.ssh.protocol import Connection

# Folders of folders: cluster.json says which of them a cluster uses.
SHARED_FOLDERS = ("env", "python", "code")
HOST_FOLDERS = ("data", "text", "wheels")  # of all clusters of the host together
CLUSTER_FOLDERS = ("clusters", "ray")  # a folder for each cluster
LIST_SECONDS = 120.0
REMOVE_SECONDS = 600.0
CLUSTER_FILE_MARK = "--launch-cluster--"

PARENT_FOLDERS = (*SHARED_FOLDERS, *CLUSTER_FOLDERS)
LISTED_PATHS = " ".join([*(f"{parent}/*" for parent in PARENT_FOLDERS), *HOST_FOLDERS])
# du counts in KiB what the disk gives up; glob patterns that match nothing fall out by -e.
LIST_COMMAND = f"""\
cd {ROOT} 2>/dev/null || exit 0
for path in {LISTED_PATHS}; do
  [ ! -e "$path" ] || du -sk "$path"
done
for file in clusters/*/cluster.json; do
  [ ! -e "$file" ] || {{ echo "{CLUSTER_FILE_MARK} $file"; cat "$file"; echo; }}
done"""


@dataclass(frozen=True)
class InstalledFiles:
    """What lies under ~/.launch: path there -> bytes on disk; cluster -> its cluster.json, None
    for one that cannot be read."""

    paths: dict[str, int] = field(default_factory=dict)
    clusters: dict[str, dict[str, str] | None] = field(default_factory=dict)


@dataclass(frozen=True)
class RemovedPath:
    """path: under ~/.launch."""

    path: str
    bytes: int


def list_installed(connection: Connection) -> InstalledFiles:
    return parse_installed(
        connection.check(LIST_COMMAND, step="list ~/.launch", timeout=LIST_SECONDS)
    )


def parse_installed(output: str) -> InstalledFiles:
    listing, *files = output.split(f"{CLUSTER_FILE_MARK} ")
    paths = {}
    for line in listing.splitlines():
        kilobytes, _, path = line.partition("\t")
        paths[path] = int(kilobytes) * 1024
    clusters = {}
    for file in files:
        path, _, text = file.partition("\n")
        try:
            clusters[path.split("/")[1]] = json.loads(text)
        except ValueError:  # torn: it may use anything
            clusters[path.split("/")[1]] = None
    return InstalledFiles(paths, clusters)


def plan_purge(cluster: str, installed: InstalledFiles) -> list[RemovedPath]:
    """The cluster's own folders, and of what is shared all that no other cluster uses.

    data and text are known by content, not by cluster: they go with the last cluster.
    """
    others = {name: record for name, record in installed.clusters.items() if name != cluster}
    known = [record for record in others.values() if record is not None]
    used = {f"{kind}/{record.get(kind)}" for record in known for kind in SHARED_FOLDERS}
    unknown = len(known) < len(others)
    removed = []
    for path, size in installed.paths.items():
        kind, _, name = path.partition("/")
        if kind in CLUSTER_FOLDERS:
            goes = name == cluster
        elif kind in HOST_FOLDERS:
            goes = not others
        else:  # beside env/KEY there may be KEY.txt, KEY.flock of an install that was cut off
            goes = not unknown and not any(
                path == key or path.startswith(f"{key}.") for key in used
            )
        if goes:
            removed.append(RemovedPath(path, size))
    return removed


def purge_command(removed: list[RemovedPath]) -> str:
    """Removes these, then the folders that are empty by then, ~/.launch itself too."""
    paths = " ".join(shlex.quote(item.path) for item in removed)
    folders = " ".join(PARENT_FOLDERS)
    return (
        f"cd {ROOT} 2>/dev/null || exit 0\n"
        f"rm -rf {paths} || exit 1\n"
        f"rmdir {folders} 2>/dev/null\n"
        '[ -z "$(ls -A | grep -vx provision.lock)" ] || exit 0\n'
        f"rm -f ~/{LOCK_FILE}; cd; rmdir {ROOT} 2>/dev/null || true"  # a symbolic link stays
    )


def purge(connection: Connection, cluster: str) -> list[RemovedPath]:
    """Remove what `plan_purge` says and return it; the cluster's processes must have ended.

    Raises HostError.
    """
    if not list_installed(connection).paths:
        return []
    with client_lock(connection):
        removed = plan_purge(cluster, list_installed(connection))
        connection.check(purge_command(removed), step="remove", timeout=REMOVE_SECONDS)
    return removed
