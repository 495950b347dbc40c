"""How long to wait before something is tried again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Pauses that double from the first to the longest (exponential backoff)."""

    first_seconds: float
    max_seconds: float

    def seconds(self, failures: int) -> float:
        """The pause after so many failures in a row; none before the first attempt."""
        if failures == 0:
            return 0.0
        exponent = min(failures - 1, 32)  # 2**32 pauses are longer than any limit
        return min(self.max_seconds, self.first_seconds * 2.0**exponent)
