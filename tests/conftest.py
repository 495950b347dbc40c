"""With `-n 2` (pytest-xdist) two processes side by side, each in its own order: the tests of
several hosts, which share two of them and mostly wait, and all others."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class TwoScopes(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "hosts" if nodeid.startswith("tests/cluster/") else "one machine"

    return TwoScopes(config, log)
