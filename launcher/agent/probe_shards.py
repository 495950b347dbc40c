"""Of climbmix, what the head has and whether it can fetch the rest: `python -P -m
launcher.agent.probe_shards SPEC ADDRESS` prints {"missing": [...], "reaches": ...} as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from launcher.config.paths import launch_home
from nanochat.dataset.climbmix import CLIMBMIX, ClimbmixSource, shard_count

PROBE_SECONDS = 5.0  # a host behind a firewall that drops packets must not hold up the others


def probe_shards(spec: str, address: str, home: Path) -> dict[str, Any]:
    source = ClimbmixSource(shard_count(spec), home / "data" / CLIMBMIX)
    files = (*source.held_out, *source.files)  # as they are needed
    missing = [file.name for file in files if not file.path.exists()]
    return {
        "missing": missing,
        "reaches": not missing or _is_reachable(f"{address.rstrip('/')}/{missing[0]}"),
    }


def _is_reachable(url: str) -> bool:
    import requests

    try:
        first_byte = {"Range": "bytes=0-0"}
        with requests.get(url, headers=first_byte, timeout=PROBE_SECONDS, stream=True) as response:
            return response.ok
    except (requests.RequestException, ValueError):  # the latter: no address at all
        return False


if __name__ == "__main__":
    print(json.dumps(probe_shards(sys.argv[1], sys.argv[2], launch_home())))
