"""Free disk space of a host, as `df -Pk` says."""

from __future__ import annotations

import re

# A line: device, blocks, used, free, capacity, mount point. A device may have spaces.
_LINE = re.compile(r"\s\d+\s+\d+\s+(\d+)\s+\d+%")


def df_free_bytes(output: str) -> int | None:
    """Return the free bytes of the last line of this kind; None if there is none."""
    found = _LINE.findall(output)
    return int(found[-1]) * 1024 if found else None
