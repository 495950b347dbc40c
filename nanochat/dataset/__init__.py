"""Text -> packed rows of token ids on disk -> batches.

`sources` finds and reads text, `prepare` tokenises and packs it, `rows` reads it back in training
order. The names below load numpy when they are first used; `sources` needs the standard library
only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanochat.dataset.rows import PreparedData, RowDataset, RowSampler

__all__ = ["PreparedData", "RowDataset", "RowSampler"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("nanochat.dataset.rows"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
