"""How people write where a machine is: [USER@]HOST[:PORT]."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

SSH_PORT = 22
# A name may be an alias of ~/.ssh/config, so there may be more in it than DNS allows.
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_ADDRESS = re.compile(
    r"((?P<user>[^\s@]+)@)?(\[(?P<bracketed>[^\s\[\]]+)\]|(?P<bare>[^\s@:\[\]]+))(:(?P<port>\d+))?"
)


@dataclass(frozen=True)
class Address:
    """What was written; what was not is None."""

    host: str
    user: str | None = None
    port: int | None = None


def parse_address(text: str) -> Address | None:
    """ada@pc1:2222, [::1]:22 or ::1 in its parts. None for what is nothing of the kind."""
    if is_host(text):
        return Address(text)
    found = _ADDRESS.fullmatch(text)
    if found is None:
        return None
    host = found["bracketed"] or found["bare"]
    port = int(found["port"]) if found["port"] else None
    return Address(host, found["user"], port) if is_host(host) else None


def is_host(text: str) -> bool:
    """Whether it is a name or an IP address and nothing more."""
    return _HOST.fullmatch(text) is not None or _ip(text) is not None


def normalize_host(host: str) -> str:
    """One spelling for all of a host's: PC1 is pc1, 0:0::1 is ::1."""
    return _ip(host) or host.lower()


def _ip(text: str) -> str | None:
    try:
        return ipaddress.ip_address(text).compressed
    except ValueError:
        return None
