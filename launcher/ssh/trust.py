"""The host keys of a cluster: what its hosts show, and what is known of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from launcher.errors import HostError, Unreachable
from launcher.ssh.connect import open_transport
from launcher.ssh.host_transport import hang_up
from launcher.ssh.known_hosts import HostKey, Verdict, judge_host_key, pin_host_keys
from launcher.ssh.parallel import in_parallel
from launcher.ssh.rediscovery import with_new_address
from launcher.ssh.target import SshTarget, target_of

if TYPE_CHECKING:
    from launcher.config.loaded_cluster import LoadedCluster
    from launcher.config.node import Node

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class ShownKey:
    """The key that a host shows to whoever asks."""

    target: SshTarget
    key: HostKey
    verdict: Verdict


def ask_for_keys(
    loaded: LoadedCluster, nodes: Sequence[Node]
) -> tuple[list[ShownKey], list[HostError]]:
    """Of all that answer, and why the others do not: a host behind a jump host can be asked once
    that one is trusted. Nobody but jump hosts is logged in to."""
    targets, wrong = in_parallel(
        {node.name: node for node in nodes}, lambda node: target_of(loaded, node)
    )
    every = {each.place: each for target in targets.values() for each in _on_the_way(target)}

    def ask(target: SshTarget) -> ShownKey:
        try:
            transport, key = open_transport(target, TIMEOUT_SECONDS)
        except Unreachable as error:
            raise with_new_address(error, target) from None
        hang_up(transport)
        return ShownKey(target, key, judge_host_key(target, key))

    shown, errors = in_parallel(every, ask)
    return list(shown.values()), [*wrong, *errors]


def _on_the_way(target: SshTarget) -> list[SshTarget]:
    """Its jump hosts, the first one first, and itself."""
    return [*(_on_the_way(target.jump) if target.jump else []), target]


def pin_keys(loaded: LoadedCluster, keys: Sequence[ShownKey]) -> None:
    """Into the cluster's known_hosts file."""
    pin_host_keys(loaded.known_hosts, [(shown.target.place, shown.key) for shown in keys])
