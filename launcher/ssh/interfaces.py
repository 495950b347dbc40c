"""The network interfaces of a machine, as `ip` or `ifconfig` prints them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface


@dataclass(frozen=True)
class Interface:
    """One IPv4 address of a network interface."""

    name: str
    address: str
    prefix_length: int

    @property
    def network(self) -> str:
        return str(IPv4Interface(f"{self.address}/{self.prefix_length}").network)


def parse_interfaces(lines: Iterable[str]) -> Iterator[Interface]:
    """Lines of `ip -o -4 addr`: `2: eth0    inet 192.168.1.5/24 brd ...`; else of ifconfig: a
    line `eth0: flags=...` or `eth0  Link encap:...`, then `inet 192.168.1.5  netmask 255...` or
    `inet addr:192.168.1.5  Bcast:...  Mask:255...`."""
    name = ""
    for line in lines:
        if found := re.match(r"\d+:\s+(\S+)\s+inet\s+([\d.]+)(?:\s+peer\s+[\d.]+)?/(\d+)", line):
            yield Interface(found[1].partition("@")[0], found[2], int(found[3]))
        elif found := re.match(r"(\S+?):? +(?:flags=|Link encap)", line):
            name = found[1]
        elif found := re.match(r"inet (?:addr:)?([\d.]+) .*(?:netmask |Mask:)([\d.]+)", line):
            mask = IPv4Interface(f"{found[1]}/{found[2]}").network
            yield Interface(name, found[1], mask.prefixlen)
