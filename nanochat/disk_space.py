"""Free space on a disk."""

from __future__ import annotations

import shutil
from pathlib import Path


def free_bytes(path: Path) -> int:
    """Bytes that this user can still write on the disk that holds `path`, which exists."""
    return shutil.disk_usage(path).free
