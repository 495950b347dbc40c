"""The way from a cluster to its runs: its head, and what the head says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from launcher.config.loaded_cluster import LoadedCluster, require_addresses
from launcher.errors import InputError
from launcher.raycluster.control import read_spec
from launcher.remote.cluster_runs import ClusterRuns
from launcher.ssh.parallel import connect_all
from launcher.ssh.protocol import Connection


@contextmanager
def open_cluster_runs(loaded: LoadedCluster) -> Iterator[ClusterRuns]:
    """Connected to the head while the block lasts.

    Raises HostError for its head, InputError where the cluster was never up, has been purged, or
    was up with another head last.
    """
    head = connect_head(loaded)
    name = loaded.cluster.name
    try:
        spec = read_spec(head, name)
        if spec is None:
            raise InputError(
                f"cluster {name} has no runs: it was never brought up, or purged since",
                fix=f"launch recipe d4 --cluster {name}",
            )
        if not spec.is_head:
            raise InputError(
                f"the head of cluster {name} is to be {spec.node}, but its runs are on "
                f"{spec.head.name} still",
                fix=f"launch cluster up {name}   (or write head: {spec.head.name} again)",
            )
        runs = ClusterRuns(spec, head, lambda: connect_head(loaded))
    except BaseException:
        head.close()
        raise
    try:
        yield runs
    finally:
        runs.head.close()


def connect_head(loaded: LoadedCluster) -> Connection:
    node = loaded.cluster.head_node
    require_addresses(loaded, [node])
    return connect_all(loaded, [node])[node.name]
