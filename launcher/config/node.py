"""One machine of a cluster file: how it is reached and what it computes with."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from launcher.config.address import SSH_PORT, is_host, parse_address
from launcher.config.strict_model import AS_WHOLE_NUMBER, Positive, StrictModel, Text

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")  # names become folders and Ray resources


def _valid_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        message = "expected 1 to 32 letters, digits and . _ -, no mark in front, got {got}"
        raise PydanticCustomError("name", message, {"got": repr(value)})
    return value


def _valid_host(value: str) -> str:
    if is_host(value):
        return value
    address = parse_address(value)
    message = "expected a name, an alias of ~/.ssh/config or an IP address, got {got}"
    parts: list[str] = []
    if address is not None:
        message = "{got} is more than a host: write {parts}"
        parts = [f"host: {address.host}"]
        parts += [f"user: {address.user}"] if address.user is not None else []
        parts += [f"port: {address.port}"] if address.port is not None else []
    raise PydanticCustomError("host", message, {"got": repr(value), "parts": ", ".join(parts)})


def _valid_jump(value: str) -> str:
    for hop in value.split(","):
        address = parse_address(hop)
        if (
            address is None
            or not 1 <= (SSH_PORT if address.port is None else address.port) <= 65535
        ):
            message = "expected [USER@]HOST[:PORT], several with commas, or none, got {got}"
            raise PydanticCustomError("jump", message, {"got": repr(value)})
    return value


def _drop_default(schema: dict[str, Any]) -> None:
    """Of a name: it is worked out, and no editor should write the empty one."""
    del schema["default"]


NAME_SCHEMA = {"type": "string", "pattern": f"^{_NAME.pattern}$"}
Name = Annotated[str, AfterValidator(_valid_name), WithJsonSchema(NAME_SCHEMA)]
OptionalName = Annotated[Name, Field(json_schema_extra=_drop_default)]


class Node(StrictModel):
    """One machine, reached over SSH."""

    name: OptionalName = ""
    """Used in messages; default: the host where it is a good name, else node1, node2, ..."""
    host: Annotated[str, AfterValidator(_valid_host)]
    """An alias of ~/.ssh/config, a name or an IP address."""
    user: Text | None = None
    """Who logs in; null: as ssh would."""
    port: Annotated[int, Field(ge=1, le=65535), AS_WHOLE_NUMBER] | None = None
    """Of its SSH server; null: as ssh would, 22 as a rule."""
    key: Text | None = None
    """A private key's file, tried first. It never leaves this machine; null: as ssh would."""
    jump: Annotated[Text, AfterValidator(_valid_jump)] | None = None
    """A host to go through, or several with commas: nodes of this file, or [USER@]HOST[:PORT];
    none: directly. null: as ssh would (ProxyJump)."""
    pool: Name = "default"
    """Nodes of one pool can train together: --pool."""
    accelerator: Literal["cpu", "cuda", "rocm"] = "cpu"
    """What computes."""
    cpus: Annotated[int, Field(ge=1), AS_WHOLE_NUMBER] | None = None
    """Cores that training may use; null: all."""
    memory_gb: Positive | None = None
    """Gigabytes: of one GPU, or of the machine where accelerator is cpu; null: as found there."""
    gpus: Annotated[int, Field(ge=1), AS_WHOLE_NUMBER] | None = None
    """GPUs that training may use; null: all."""
    gpu_model: Text | None = None
    """As its vendor calls it."""
    share: Positive = 1.0
    """Weight of its part of each step's rows: a node of 3 takes three times as many as one of 1."""
    watts: Positive | None = None
    """What it draws while it trains."""

    @property
    def explicit_share(self) -> float | None:
        """None where the file leaves it out."""
        return self.share if "share" in self.model_fields_set else None


def name_nodes(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
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
