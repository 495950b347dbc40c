"""`launch measure` on this machine, and a run that chooses by it."""

from __future__ import annotations

import json
from pathlib import Path

from running import Home


def test_what_is_measured_is_used_by_the_next_run(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    done = home.launch("measure", "--recipe", "tiny", "--size", "tiny", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    file = home.path / "measured" / "local.json"
    assert json.loads(file.read_text()) == found
    [(name, host)] = found["hosts"].items()
    assert (name, found["cluster"], found["links"]) == ("", "local", {})
    assert host["widths"].keys() == {"128"} and str(host["threads"]) in host["thread_rates"]
    assert (found["probe"]["recipe"], found["probe"]["steps"]) == ("tiny", 6)
    assert found["probe"]["shares"] == {"": 1.0}
    assert "measured  threads " in done.stderr and "step 8/8" in done.stderr
    assert not list((home.path / "runs").glob("measure*"))  # removed, with its checkpoint

    # Another number than this machine would have by itself.
    host |= {"threads": 1, "why_threads": "1 of 64: 3 GFLOP/s; 64 give 2", "pass_tokens": 1024}
    file.write_text(json.dumps(found))
    plan = json.loads(home.launch("recipe", "tiny", "--dry-run", "--json").stdout)
    assert plan["reasons"]["threads"].startswith("1 of 64: 3 GFLOP/s; 64 give 2; measured 20")
    trained = home.launch("recipe", "tiny", "--steps", "2", "--name", "next")
    assert trained.returncode == 0, trained.stderr
    assert "1 of 64: 3 GFLOP/s; 64 give 2; measured 20" in trained.stderr
    run = home.run("next")
    spec = json.loads((run.path / "run.json").read_text())
    assert (spec["threads"], spec["settings"]["micro_batch"]) == ({"": 1}, 16)
    assert spec["reasons"].items() >= spec["chosen"]["reasons"].items()
    assert spec["reasons"]["passes"].startswith("1,024 tokens each: 1,024 are as fast as any")
