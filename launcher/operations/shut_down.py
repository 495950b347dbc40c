"""Stop a cluster's Ray on its hosts, and leave them as they were found."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from launcher.config.loaded_cluster import LoadedCluster
from launcher.config.subcluster import subclusters
from launcher.errors import HostError, HostsFailed
from launcher.provision.purge import RemovedPath, purge
from launcher.raycluster.control import active_runs, read_spec, stop_ray
from launcher.remote.cluster_runs import ClusterRuns, RemoteRun, run_names
from launcher.remote.fetch_checkpoints import fetch_newest_checkpoints
from launcher.ssh.parallel import call_on_all
from launcher.ssh.protocol import Connection
from nanochat.progress import Progress


class ClusterShutdown:
    """One of the clusters that a file's hosts can be joined to.

    `connections`: to those hosts of the file that answer.
    """

    def __init__(self, loaded: LoadedCluster, connections: Mapping[str, Connection]) -> None:
        self.name = loaded.cluster.name
        self._cli_name = loaded.cli_name
        self._is_whole_file = loaded.subcluster is None
        self._head = loaded.cluster.head_node.name
        names = (node.name for node in loaded.cluster.nodes)
        self.connections = {name: connections[name] for name in names if name in connections}
        self.boot_hooks: Mapping[str, Sequence[str]] = {}  # node -> what `stop` removed

    def running(self) -> list[str]:
        """Return the names of active runs. Raises HostError if that cannot be known."""
        if self._head not in self.connections and (self.connections or self._is_whole_file):
            raise HostError(
                self._head,
                "the head does not answer: whether a run is at work is not known",
                fix=f"launch cluster down {self._cli_name} --force   stops Ray on the other hosts",
            )
        return active_runs(self.connections, self.name)

    def cancel_runs(self) -> list[str]:
        """Have active runs end without a checkpoint; they do not go on with the next `up`."""
        try:
            names = active_runs(self.connections, self.name)
        except (HostError, HostsFailed):  # what cannot be known must not keep Ray up
            return []
        for name in names:
            self._require_runs().find(name).request_stop()
        return names

    def active_runs(self) -> Iterator[RemoteRun]:
        runs = self._require_runs()
        for name in runs.running():
            yield runs.find(name)

    def stop(self) -> list[str]:
        """End Ray. Return the names of the hosts on which something was running."""
        stopped = stop_ray(self.connections, self.name)
        self.boot_hooks = {node: host.boot_hooks for node, host in stopped.items()}
        return [node for node, host in stopped.items() if host.was_running]

    def fetch_checkpoints(self, progress: Progress) -> dict[str, str]:
        """Bring the newest checkpoint of every run here. Run -> its folder."""
        runs = self._find_runs()
        if runs is None:
            return {}
        fetched = fetch_newest_checkpoints(runs, self.connections, progress)
        if self._is_whole_file:
            return fetched
        return {f"{self.name}/{run}": path for run, path in fetched.items()}

    def purge(self, connection: Connection) -> list[RemovedPath]:
        """Remove what was put on a host, and return it."""
        return purge(connection, self.name)

    def _require_runs(self) -> ClusterRuns:
        runs = self._find_runs()
        assert runs is not None  # one of them is active
        return runs

    def _find_runs(self) -> ClusterRuns | None:
        """None if there are none. Raises HostError if there are some of which no host has a
        record."""
        for host in self.connections.values():
            if (spec := read_spec(host, self.name)) is not None:
                head = self.connections.get(spec.head.name, host)
                return ClusterRuns(read_spec(head, self.name) or spec, head)
        for host in self.connections.values():
            if names := run_names(host, self.name):
                raise HostError(
                    host.name,
                    f"it has run '{names[0]}', of which no host has a record",
                    fix="look at ~/.launch/clusters there, or give it up: add --discard-runs",
                )
        return None


def describe_forgotten_subclusters(
    loaded: LoadedCluster, connections: Mapping[str, Connection]
) -> Iterator[str]:
    """Pools that were clusters of their own before the file gave them another name or the head:
    nothing else would say that they are still there."""
    name = loaded.cluster.name
    subcluster_names = {subcluster.cluster.name for subcluster in subclusters(loaded)}
    script = f"cd .launch/clusters 2>/dev/null && ls -d {shlex.quote(name)}.* 2>/dev/null; true"
    listings = call_on_all(connections, lambda host: host.check(script, step="list"))
    for host, output in listings.items():
        for forgotten in sorted(set(output.split()) - subcluster_names):
            yield (
                f"{host}: {forgotten} is there too, which the file has no more: name pool "
                f"{forgotten.removeprefix(f'{name}.')} as before, and down {loaded.cli_name} again"
            )
