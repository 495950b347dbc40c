"""`launch measure --cluster` on two hosts, and a run that takes its shares from it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lab import Host
from pair import CLUSTER, HostRun, PairClient
from running import Run


def test_what_is_measured_decides_the_next_runs_shares(
    client: PairClient, whole: Run, hosts: tuple[Host, Host]
) -> None:
    done = client.launch(
        "measure", "--cluster", CLUSTER, "--recipe", "tiny", "--size", "tiny", "--json"
    )
    assert done.returncode == 0, done.stderr
    file = client.path / "measured" / f"{CLUSTER}.json"
    found = json.loads(file.read_text())
    try:
        assert json.loads(done.stdout) == found
        assert found["hosts"].keys() == {"one", "two"} and found["links"].keys() == {"one two"}
        assert found["probe"]["shares"] == {"one": 1.0, "two": 1.0}
        assert "two: threads 1 of 1" in done.stderr and "one - two: " in done.stderr
        for host in hosts:
            assert not HostRun(host, "measure-1").path.exists()
        assert not client.run("measure-1").path.exists()

        slow = dict.fromkeys(("products", "attention", "head", "muon"), 1e9)
        found["hosts"]["one"] |= _host({key: 3 * rate for key, rate in slow.items()})
        found["hosts"]["two"] |= _host(slow)
        file.write_text(json.dumps(found))
        client.train("measured-shares")
    finally:
        file.unlink(missing_ok=True)
    run = client.run("measured-shares")
    spec = json.loads((run.path / "run.json").read_text())
    shares = {node["name"]: node["share"] for node in spec["nodes"]}
    assert shares == spec["chosen"]["shares"] and shares["one"] > 2.9 * shares["two"]
    assert spec["threads"] == {"one": 1, "two": 1}
    said = next(event["reasons"] for event in run.events if event.get("stage") == "hardware")
    assert said["shares"].startswith("one 24, two 8 of the 32 rows of a step: done at once")
    assert said["threads"].startswith("one: 1 of 1")
    assert run.losses() == pytest.approx(whole.losses(), rel=1e-5)


def _host(rates: dict[str, float]) -> dict[str, Any]:
    """With an optimizer that takes no time, and passes that take what their parts do."""
    return {
        "widths": {"128": rates | {"muon": 1e18}}, "adamw_bytes_per_second": 1e18,
        "pass_correction": 1.0,
    }  # fmt: skip
