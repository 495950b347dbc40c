"""The host keys of a cluster: what its hosts offer, and what is known of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from launcher.errors import HostError, Unreachable
from launcher.ssh.connect import open_transport
from launcher.ssh.host_transport import hang_up
from launcher.ssh.known_hosts import HostKey, HostKeyVerdict, judge_host_key, pin_host_keys
from launcher.ssh.parallel import in_parallel
from launcher.ssh.rediscovery import with_new_address
from launcher.ssh.target import SshTarget, node_target

if TYPE_CHECKING:
    from launcher.config.loaded_cluster import LoadedCluster
    from launcher.config.node import Node

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class OfferedHostKey:
    """The key that a host offers to whoever connects."""

    target: SshTarget
    key: HostKey
    verdict: HostKeyVerdict


def fetch_host_keys(
    loaded: LoadedCluster, nodes: Sequence[Node]
) -> tuple[list[OfferedHostKey], list[HostError]]:
    """Of all that answer, and why the others do not: a host behind a jump host can be asked once
    that one is trusted. Nobody but jump hosts is logged in to."""
    targets, wrong = in_parallel(
        {node.name: node for node in nodes}, lambda node: node_target(loaded, node)
    )
    by_name = {
        hop.known_host_name: hop for target in targets.values() for hop in _with_jump_hosts(target)
    }

    def ask(target: SshTarget) -> OfferedHostKey:
        try:
            transport, key = open_transport(target, TIMEOUT_SECONDS)
        except Unreachable as error:
            raise with_new_address(error, target) from None
        hang_up(transport)
        return OfferedHostKey(target, key, judge_host_key(target, key))

    offered, errors = in_parallel(by_name, ask)
    return list(offered.values()), [*wrong, *errors]


def _with_jump_hosts(target: SshTarget) -> list[SshTarget]:
    """Its jump hosts, the first one first, and itself."""
    return [*(_with_jump_hosts(target.jump) if target.jump else []), target]


def pin_keys(loaded: LoadedCluster, keys: Sequence[OfferedHostKey]) -> None:
    """Into the cluster's known_hosts file."""
    pin_host_keys(loaded.known_hosts, [(item.target.known_host_name, item.key) for item in keys])
