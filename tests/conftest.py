"""Two processes of pytest-xdist side by side, each in its own order: the tests of several hosts,
which share two of them and mostly wait, and all others."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        is_of_hosts = item.path.parent == Path(__file__).parent / "cluster"
        item.add_marker(pytest.mark.xdist_group("hosts" if is_of_hosts else "one machine"))
