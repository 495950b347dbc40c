"""Shuffles that are the same on every machine."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def permutation(count: int, *key: int) -> npt.NDArray[np.int64]:
    """0 ... count - 1 in an order that `key`, of integers >= 0, decides."""
    # numpy keeps raw streams stable between versions, but not Generator.permutation (NEP 19)
    stream = np.random.Philox(np.random.SeedSequence(key))
    return np.argsort(stream.random_raw(count), kind="stable")
