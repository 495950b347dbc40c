"""Several hosts at once: a thread for each, answers in the order of the cluster file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from launcher.errors import HostError, HostsFailed
from launcher.ssh.connection import connect
from launcher.ssh.prompts import run_in_threads
from launcher.ssh.protocol import Connection
from launcher.ssh.target import node_target

if TYPE_CHECKING:
    from launcher.config.loaded_cluster import LoadedCluster
    from launcher.config.node import Node

Result = TypeVar("Result")
Work = TypeVar("Work")


def connect_all(loaded: LoadedCluster, nodes: Sequence[Node]) -> dict[str, Connection]:
    """Node's name -> its connection.

    Where any host fails, none stays connected. Raises its HostError, or HostsFailed for several.
    """

    opened, errors = try_connect_all(loaded, nodes)
    if errors:
        close_all(opened)
        raise combine_errors(errors)
    return opened


def try_connect_all(
    loaded: LoadedCluster, nodes: Sequence[Node]
) -> tuple[dict[str, Connection], list[HostError]]:
    """Connections to the hosts that answer, and the errors of the others."""

    def open_connection(node: Node) -> Connection:
        return connect(node_target(loaded, node))

    return in_parallel({node.name: node for node in nodes}, open_connection)


def close_all(connections: Mapping[str, Connection]) -> None:
    for connection in connections.values():
        connection.close()


def call_on_all(
    connections: Mapping[str, Connection], function: Callable[[Connection], Result]
) -> dict[str, Result]:
    """Call it for every host and wait for all. Name -> what it returned.

    Raises the HostError of the one that failed, or HostsFailed. Ctrl-C ends the wait at once; what
    has been begun on the hosts goes on until its connection is closed.
    """
    answers, errors = in_parallel(connections, function)
    if errors:
        raise combine_errors(errors)
    return answers


def combine_errors(errors: Sequence[HostError]) -> HostError | HostsFailed:
    """One error to raise for those of several hosts."""
    return errors[0] if len(errors) == 1 else HostsFailed(errors)


def in_parallel(
    work: Mapping[str, Work], function: Callable[[Work], Result]
) -> tuple[dict[str, Result], list[HostError]]:
    """What went well and what did not, each in the order of `work`.

    Any other exception is raised once all have ended. Ctrl-C ends the wait at once.
    """
    answers: dict[str, Result] = {}
    errors: dict[str, Exception] = {}

    def call(name: str) -> None:
        try:
            answers[name] = function(work[name])
        except Exception as error:
            errors[name] = error

    run_in_threads([partial(call, name) for name in work])
    failed = [errors[name] for name in work if name in errors]
    for error in failed:
        if not isinstance(error, HostError):
            raise error
    ordered = {name: answers[name] for name in work if name in answers}
    return ordered, [error for error in failed if isinstance(error, HostError)]
