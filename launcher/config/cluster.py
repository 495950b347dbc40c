"""Cluster files: which machines there are and how they are reached. Pure data, checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from launcher.config.address import is_host, split_address
from launcher.config.block import WHOLE, Block, Positive, Text
from launcher.config.cluster_rules import LOCAL, broken_rules
from launcher.config.paths import find_file, is_path, list_files, shown_path
from launcher.config.validation import nearest_hint, raise_broken, validate
from launcher.config.yaml_source import Problem, Source, read_source
from launcher.errors import ConfigError, InputError, NotFound

CHANGE_ME = "CHANGE-ME"  # how the hosts of shipped files begin

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")  # names become folders and Ray resources
_PYTHON = re.compile(r"3\.\d+(\.\d+)?|.*/.*|.*\.tar\.gz")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        message = "expected 1 to 32 letters, digits and . _ -, no mark in front, got {got}"
        raise PydanticCustomError("name", message, {"got": repr(value)})
    return value


def _host(value: str) -> str:
    if is_host(value):
        return value
    address = split_address(value)
    message = "expected a name, an alias of ~/.ssh/config or an IP address, got {got}"
    parts: list[str] = []
    if address is not None:
        message = "{got} is more than a host: write {parts}"
        parts = [f"host: {address.host}"]
        parts += [f"user: {address.user}"] if address.user is not None else []
        parts += [f"port: {address.port}"] if address.port is not None else []
    raise PydanticCustomError("host", message, {"got": repr(value), "parts": ", ".join(parts)})


def _chain(value: str) -> str:
    for hop in value.split(","):
        address = split_address(hop)
        if address is None or not 1 <= (22 if address.port is None else address.port) <= 65535:
            message = "expected [USER@]HOST[:PORT], several with commas, or none, got {got}"
            raise PydanticCustomError("jump", message, {"got": repr(value)})
    return value


def _python(value: str) -> str | None:
    if value == "auto":
        return None
    if not _PYTHON.fullmatch(value):
        message = "expected auto, a version as in 3.12 or 3.12.11, or an archive, got {got}"
        raise PydanticCustomError("python", message, {"got": repr(value)})
    return value


def _not_yet(value: Any) -> None:
    if value is not None:
        raise PydanticCustomError("not_yet", "not supported yet: leave it out")


def _name_nodes(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Those without a name get their host's where it is a good one, else node1, node2, ...

    Of several behind one address (on several ports) the first gets it.
    """
    named: list[Node] = []
    hosts: set[str] = set()
    for number, node in enumerate(nodes, start=1):
        if not node.name:
            good = _NAME.fullmatch(node.host) and node.host not in hosts
            node = node.model_copy(update={"name": node.host if good else f"node{number}"})
        hosts.add(node.host)
        named.append(node)
    return tuple(named)


def _drop_default(schema: dict[str, Any]) -> None:
    """Of a name: it is worked out, and no editor should write the empty one."""
    del schema["default"]


NAME_SCHEMA = {"type": "string", "pattern": f"^{_NAME.pattern}$"}
Name = Annotated[str, AfterValidator(_name), WithJsonSchema(NAME_SCHEMA)]
OptionalName = Annotated[Name, Field(json_schema_extra=_drop_default)]


class Node(Block):
    """One machine, reached over SSH."""

    name: OptionalName = ""
    """Used in messages; default: the host where it is a good name, else node1, node2, ..."""
    host: Annotated[str, AfterValidator(_host)]
    """An alias of ~/.ssh/config, a name or an IP address."""
    user: Text | None = None
    """Who logs in; null: as ssh would."""
    port: Annotated[int, Field(ge=1, le=65535), WHOLE] | None = None
    """Of its SSH server; null: as ssh would, 22 as a rule."""
    key: Text | None = None
    """A private key's file, tried first. It never leaves this machine; null: as ssh would."""
    jump: Annotated[Text, AfterValidator(_chain)] | None = None
    """A host to go through, or several with commas: nodes of this file, or [USER@]HOST[:PORT];
    none: directly. null: as ssh would (ProxyJump)."""
    pool: Name = "default"
    """Nodes of one pool can train together: --pool."""
    accelerator: Literal["cpu", "cuda", "rocm"] = "cpu"
    """What computes."""
    cpus: Annotated[int, Field(ge=1), WHOLE] | None = None
    """Cores that training may use; null: all."""
    memory_gb: Positive | None = None
    """Gigabytes: of one GPU, or of the machine where accelerator is cpu; null: as found there."""
    gpus: Annotated[int, Field(ge=1), WHOLE] | None = None
    """GPUs that training may use; null: all."""
    gpu_model: Text | None = None
    """As its vendor calls it."""
    share: Positive = 1.0
    """Weight of its part of each step's rows: a node of 3 takes three times as many as one of 1."""
    watts: Positive | None = None
    """What it draws while it trains."""

    @property
    def written_share(self) -> float | None:
        """None where the file leaves it out."""
        return self.share if "share" in self.model_fields_set else None


class Network(Block):
    """What lies between the nodes."""

    interface: Text | None = None
    """Its name on every node (eth0); null: found out on each."""
    profile: Literal["lan", "wifi"] = "lan"
    """wifi waits longer before it gives a node up."""
    gbit_per_second: Positive | None = None
    """Of the slowest link; null: measured."""


class Environment(Block):
    """What is installed on the nodes, under ~/.launch."""

    python: Annotated[str, AfterValidator(_python)] | None = None
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


class Cluster(Block):
    """Machines that train together."""

    name: OptionalName = ""
    """Default: the file's name without its ending."""
    nodes: Annotated[tuple[Node, ...], Field(strict=False), AfterValidator(_name_nodes)] = ()
    """The machines."""
    head: str | None = None
    """Name of the node that runs are sent to and that keeps them; null: the first."""
    network: Network = Network()
    backend: Literal["gloo", "nccl", "rccl"] | None = None
    """How gradients are exchanged; null: chosen to fit the accelerators."""
    storage: Annotated[str | None, BeforeValidator(_not_yet)] = None
    """A place for one more copy of checkpoints. Not supported yet."""
    environment: Environment = Environment()
    idle_minutes: Annotated[float, Field(ge=0)] = 30.0
    """Minutes without a run after which Ray ends on the nodes; 0: never by itself."""

    @model_validator(mode="after")
    def _check_rules(self) -> Cluster:
        raise_broken(list(broken_rules(self)))
        return self

    @property
    def head_node(self) -> Node:
        """Raises InputError where there is none: on `local`."""
        if not self.nodes:
            raise _no_nodes()
        return next((node for node in self.nodes if node.name == self.head), self.nodes[0])

    @property
    def pools(self) -> tuple[str, ...]:
        """In the order of their first nodes."""
        return tuple(dict.fromkeys(node.pool for node in self.nodes))

    def in_pool(self, pool: str | None) -> tuple[Node, ...]:
        """Its nodes; all without a pool."""
        return tuple(node for node in self.nodes if pool in (None, node.pool))


@dataclass(frozen=True)
class LoadedCluster:
    """A cluster with its origin. `typed`: what names it on a command line. `part`: the pool of the
    file that it is; `file_nodes`: all that the file has."""

    name: str
    path: Path
    cluster: Cluster
    source: Source
    typed: str
    file_nodes: tuple[Node, ...]
    part: str | None = None

    @property
    def known_hosts(self) -> Path:
        """Its pinned host keys, which need not exist."""
        return self.path.with_name(f"{self.path.stem}.known_hosts")

    def error(self, key: str, message: str, *, fix: str | None = None) -> ConfigError:
        """For what turns out wrong later: points at the key (nodes[0].host)."""
        return self.source.error_at(key, message, fix=fix)


def find_cluster(name_or_path: str) -> Path:
    """A cluster's file by its own name, else by the `name:` in it, else by path.

    Raises NotFound with the nearest names.
    """
    try:
        return find_file("cluster", name_or_path)
    except NotFound:
        for file in list_files("cluster"):
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
        from launcher.config.pools import require_part

        return require_part(loaded, pool)
    typed = shown_path(path) if is_path(name_or_path) else name_or_path
    source = read_source(path, fix=f"launch edit cluster {typed}")
    source.default("name", path.stem)
    cluster = validate(Cluster, source)
    return LoadedCluster(cluster.name, path, cluster, source, typed, cluster.nodes)


def require_addresses(loaded: LoadedCluster, nodes: Sequence[Node]) -> None:
    """Raises ConfigError for those whose host still is CHANGE-ME, InputError for no nodes."""
    if not nodes:
        raise _no_nodes()
    problems = [
        Problem(loaded.source.place(key), f"{key}: write the address of your own machine here")
        for index, node in enumerate(loaded.file_nodes)
        if node in nodes and lacks_address(node)
        for key in [f"nodes[{index}].host"]
    ]
    if problems:
        raise loaded.source.error(*problems)


def lacks_address(node: Node) -> bool:
    """Whether it is as it was shipped."""
    return node.host.startswith(CHANGE_ME)


def require_pool(loaded: LoadedCluster, pool: str | None) -> tuple[Node, ...]:
    """Its nodes; all without a pool. Raises NotFound, or InputError for a cluster without nodes."""
    cluster = loaded.cluster
    if not cluster.nodes:
        raise _no_nodes()
    if pool is not None and pool not in cluster.pools:
        raise _unknown(loaded, "pool", pool, cluster.pools)
    return cluster.in_pool(pool)


def require_trainable(loaded: LoadedCluster, pool: str | None) -> tuple[Node, ...]:
    """The nodes that a run of this pool trains on, all of one accelerator. Raises NotFound or
    InputError."""
    nodes, cluster = require_pool(loaded, pool), loaded.cluster
    if len({node.accelerator for node in nodes}) > 1:
        raise InputError(
            f"the hosts of {loaded.name} have different accelerators, which cannot train together",
            fix=f"say which: {' or '.join(f'--pool {name}' for name in cluster.pools)}",
        )
    return nodes


def require_node(loaded: LoadedCluster, name: str) -> Node:
    """Raises NotFound, or InputError for a cluster without nodes."""
    nodes = {node.name: node for node in require_pool(loaded, None)}
    if name not in nodes:
        raise _unknown(loaded, "node", name, tuple(nodes))
    return nodes[name]


def _unknown(loaded: LoadedCluster, what: str, name: str, known: Sequence[str]) -> NotFound:
    message = f"cluster {loaded.name} has no {what} {name!r}: {nearest_hint(name, known)}"
    return NotFound(message, fix=f"launch cluster show {loaded.typed}")


def _name_in(path: Path) -> str | None:
    try:
        return read_source(path).data.get("name")
    except InputError:
        return None


def _no_nodes() -> InputError:
    return InputError(
        f"{LOCAL} is this machine, without SSH: there is no host to connect to",
        fix="name another cluster (launch cluster list), or write one (launch cluster new --help)",
    )
