"""How much memory a process can still have. Imports no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def available_bytes(root: Path = Path("/")) -> int | None:
    """What this process can still have without swapping: of its machine, and of the groups
    (cgroups) that it is in. None where the system does not say. `root`: of the file system."""
    return min((*_left_on_machine(root), *_left_in_groups(root)), default=None)


def _left_on_machine(root: Path) -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError):
        fields = (root / "proc/meminfo").read_text().split()
        yield int(fields[fields.index("MemAvailable:") + 1]) * 1024


def _left_in_groups(root: Path) -> Iterator[int]:
    """Of each group that has a limit, those above it too. In a container the file system may begin
    at its own group, whatever its name is outside."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if not controllers:  # version 2
            top, files = root / "sys/fs/cgroup", ("memory.max", "memory.current")
            reclaimed = "inactive_file"
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            reclaimed = "total_inactive_file"
        else:
            continue
        group = PurePosixPath(name.lstrip("/"))
        for folder in (top / name for name in (group, *group.parents)):
            with contextlib.suppress(OSError, ValueError):  # not there, or no limit: "max"
                limit, used = (int((folder / file).read_text()) for file in files)
                fields = (folder / "memory.stat").read_text().split()
                cached = int(fields[fields.index(reclaimed) + 1])  # of files: it goes first
                yield max(0, limit - used + cached)
