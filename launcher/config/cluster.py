"""Cluster files: which machines there are, and how they are reached. Pure data, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from launcher.config.validation import validate
from launcher.config.yaml_source import Source, read_source

CHANGE_ME = "CHANGE-ME"


class _Block(BaseModel):
    model_config = ConfigDict(
        allow_inf_nan=False, extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class Node(_Block):
    name: str = ""
    host: str
    user: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    key: str | None = None
    pool: str = "default"
    accelerator: Literal["cpu", "cuda", "rocm"] = "cpu"
    cpus: int | None = None


class Network(_Block):
    interface: str | None = None
    profile: Literal["lan", "wifi"] = "lan"


class Environment(_Block):
    python: str | None = None
    index_url: str | None = None
    extra_index_url: str | None = None
    find_links: str | None = None
    push: Literal["auto", "always", "never"] = "auto"


class Cluster(_Block):
    name: str = ""
    nodes: list[Node]
    head: str | None = None
    network: Network = Network()
    environment: Environment = Environment()
    idle_minutes: float = 30.0

    @property
    def head_node(self) -> Node:
        return self.nodes[0]

    def in_pool(self, pool: str | None) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if pool in (None, node.pool))


@dataclass(frozen=True)
class LoadedCluster:
    name: str
    path: Path
    cluster: Cluster
    source: Source

    @property
    def known_hosts(self) -> Path:
        return self.path.with_name(f"{self.path.stem}.known_hosts")


def load_cluster(name_or_path: str) -> LoadedCluster:
    path = Path(name_or_path)
    source = read_source(path)
    cluster = validate(Cluster, source)
    cluster = cluster.model_copy(update={"name": cluster.name or path.stem})
    return LoadedCluster(cluster.name, path, cluster, source)


def require_addresses(loaded: LoadedCluster, nodes: Sequence[Node]) -> None:
    pass


def require_pool(loaded: LoadedCluster, pool: str | None) -> tuple[Node, ...]:
    return loaded.cluster.in_pool(pool)


def require_node(loaded: LoadedCluster, name: str) -> Node:
    return next(node for node in loaded.cluster.nodes if node.name == name)
