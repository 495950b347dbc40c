"""What is in the way of a download, told where it is news."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

FIGURE = re.compile(r"0x[0-9a-f]+|\d[\d,]*")
TROUBLE_SECONDS = 60.0  # between two words on the same trouble: some servers break off every second


class Trouble:
    """Of one file. What differs in its figures alone is the same trouble: told again only when the
    file has got further since and TROUBLE_SECONDS have passed."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._bytes = 0
        self._told: dict[str, tuple[int, float]] = {}  # bytes that were here then, time

    def has_come(self, size: int) -> None:
        """So many bytes are here."""
        self._bytes = max(self._bytes, size)

    def tell(self, reason: str) -> None:
        kind, now = FIGURE.sub("", reason), time.monotonic()
        size, told_at = self._told.get(kind, (-1, -TROUBLE_SECONDS))
        if self._bytes > size and now - told_at >= TROUBLE_SECONDS:
            self._told[kind] = self._bytes, now
            self._tell(reason)
