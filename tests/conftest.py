"""With `-n 2` (pytest-xdist) two processes side by side, each in its own order: the tests that
share one cluster of two hosts, which mostly wait, and all others."""

from __future__ import annotations

from typing import Any

import pytest

SHARE_A_CLUSTER = "tests/cluster/test_cluster_"  # begins the names of these files


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class TwoScopes(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "shared cluster" if nodeid.startswith(SHARE_A_CLUSTER) else "others"

    return TwoScopes(config, log)
