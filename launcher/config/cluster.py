"""Cluster files: which machines there are and how they are reached. Pure data, checked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from launcher.config.address import SSH_PORT, normalize_host
from launcher.config.node import Node, OptionalName, name_nodes
from launcher.config.strict_model import Positive, StrictModel, Text
from launcher.config.validation import BrokenRule, nearest_hint, raise_broken_rules
from launcher.errors import InputError

LOCAL = "local"  # this machine, without SSH: the cluster that has no nodes
_PYTHON = re.compile(r"3\.\d+(\.\d+)?|.*/.*|.*\.tar\.gz")
ACCELERATOR_BY_BACKEND = {"nccl": "cuda", "rccl": "rocm"}  # backend -> accelerator


def _valid_python(value: str) -> str | None:
    if value == "auto":
        return None
    if not _PYTHON.fullmatch(value):
        message = "expected auto, a version as in 3.12 or 3.12.11, or an archive, got {got}"
        raise PydanticCustomError("python", message, {"got": repr(value)})
    return value


def _reject_storage(value: Any) -> None:
    if value is not None:
        raise PydanticCustomError("not_yet", "not supported yet: leave it out")


class Network(StrictModel):
    """What lies between the nodes."""

    interface: Text | None = None
    """Its name on every node (eth0); null: found out on each."""
    profile: Literal["lan", "wifi"] = "lan"
    """wifi waits longer before it gives a node up."""
    gbit_per_second: Positive | None = None
    """Of the slowest link; null: measured."""


class Environment(StrictModel):
    """What is installed on the nodes, under ~/.launch."""

    python: Annotated[str, AfterValidator(_valid_python)] | None = None
    """A version in quotes ('3.12'), or the path or URL of an install_only archive of
    python-build-standalone; null or auto: the nodes' own where they are equal."""
    index_url: Text | None = None
    """Package index; null: as pip is configured here."""
    extra_index_url: Text | None = None
    """Another one beside it."""
    find_links: Text | None = None
    """Folder or URL of a page with wheels."""
    push: Literal["auto", "always", "never"] = "auto"
    """Send wheels from here; auto: to nodes that do not reach the index."""


class Cluster(StrictModel):
    """Machines that train together."""

    name: OptionalName = ""
    """Default: the file's name without its ending."""
    nodes: Annotated[tuple[Node, ...], Field(strict=False), AfterValidator(name_nodes)] = ()
    """The machines."""
    head: str | None = None
    """Name of the node that runs are sent to and that keeps them; null: the first."""
    network: Network = Network()
    backend: Literal["gloo", "nccl", "rccl"] | None = None
    """How gradients are exchanged; null: chosen to fit the accelerators."""
    storage: Annotated[str | None, BeforeValidator(_reject_storage)] = None
    """A place for one more copy of checkpoints. Not supported yet."""
    environment: Environment = Environment()
    idle_minutes: Annotated[float, Field(ge=0)] = 30.0
    """Minutes without a run after which Ray ends on the nodes; 0: never by itself."""

    @model_validator(mode="after")
    def _check_rules(self) -> Cluster:
        raise_broken_rules(list(_broken_rules(self)))
        return self

    @property
    def head_node(self) -> Node:
        """Raises InputError where there is none: on `local`."""
        if not self.nodes:
            raise no_nodes_error()
        return next((node for node in self.nodes if node.name == self.head), self.nodes[0])

    @property
    def pools(self) -> tuple[str, ...]:
        """In the order of their first nodes."""
        return tuple(dict.fromkeys(node.pool for node in self.nodes))

    def nodes_in_pool(self, pool: str | None) -> tuple[Node, ...]:
        """Its nodes; all without a pool."""
        return tuple(node for node in self.nodes if pool in (None, node.pool))


def no_nodes_error() -> InputError:
    return InputError(
        f"{LOCAL} is this machine, without SSH: there is no host to connect to",
        fix="name another cluster (launch cluster list), or write one (launch cluster new --help)",
    )


def _broken_rules(cluster: Cluster) -> Iterator[BrokenRule]:
    yield from _broken_cluster_rules(cluster)
    yield from _broken_node_rules(cluster.nodes)
    yield from _broken_accelerator_rules(cluster)


def _broken_cluster_rules(cluster: Cluster) -> Iterator[BrokenRule]:
    if cluster.name == LOCAL:
        for key in sorted(cluster.model_fields_set - {"name"}):
            if key != "nodes" or cluster.nodes:
                yield f"{key}: {LOCAL} is this machine, without SSH, and has no {key}", (key,)
    elif not cluster.nodes:
        yield "nodes: name at least one machine, as in - host: pc1", ("nodes",)
    names = [node.name for node in cluster.nodes]
    if cluster.nodes and cluster.head is not None and cluster.head not in names:
        hint = nearest_hint(cluster.head, names)
        yield f"head: no node is named {cluster.head!r}: {hint}", ("head",)


def _broken_node_rules(nodes: Sequence[Node]) -> Iterator[BrokenRule]:
    names: set[str] = set()
    machines: dict[tuple[str, int], str] = {}
    for index, node in enumerate(nodes):
        at = f"nodes[{index}]"
        if node.name in names:
            message = f"{at}.name: another node is named {node.name!r} already"
            yield message, (f"{at}.name", f"{at}.host")
        names.add(node.name)
        first = machines.setdefault((normalize_host(node.host), node.port or SSH_PORT), node.name)
        if first != node.name:
            message = f"{at}.host: this machine is node {first!r} already: a machine is one node"
            yield message, (f"{at}.host",)
        for key in ("gpus", "gpu_model"):
            if node.accelerator == "cpu" and getattr(node, key) is not None:
                message = f"{at}.{key}: accelerator is cpu: write accelerator: cuda, or rocm"
                yield message, (f"{at}.{key}",)


def _broken_accelerator_rules(cluster: Cluster) -> Iterator[BrokenRule]:
    vendors: dict[str, str] = {}
    for index, node in enumerate(cluster.nodes):
        if node.accelerator == "cpu":
            continue
        first = vendors.setdefault(node.pool, node.accelerator)
        if first != node.accelerator:
            message = (
                f"nodes[{index}].accelerator: {first} and {node.accelerator} in pool "
                f"{node.pool!r}: NCCL and RCCL ranks cannot share a group: give it another pool"
            )
            yield message, (f"nodes[{index}].accelerator",)
    needed = ACCELERATOR_BY_BACKEND.get(cluster.backend or "")
    unfit = [node.name for node in cluster.nodes if node.accelerator != needed]
    if needed and unfit:
        message = (
            f"backend: {cluster.backend} needs accelerator {needed}, which {', '.join(unfit)} "
            f"{'has' if len(unfit) == 1 else 'have'} not: leave backend out, and it will fit"
        )
        yield message, ("backend",)
