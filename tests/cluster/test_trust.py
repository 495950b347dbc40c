"""`launch cluster trust` as a user runs it, on hosts that are new, known, changed and gone."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import USER, Host, Lab
from reach import cluster_file, fingerprint

from launcher.config.cluster_file import load_cluster
from launcher.ssh.parallel import close_all, connect_all

COMMAND = [sys.executable, "-m", "launcher.cli", "cluster", "trust"]
Trust = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def trust(ssh_home: Path, lab: Lab, box: Host, monkeypatch: pytest.MonkeyPatch) -> Trust:
    """Runs the command on a cluster `home` of three hosts. `typed`: what its terminal hears."""
    monkeypatch.chdir(ssh_home)
    monkeypatch.setenv("LAUNCH_HOME", str(ssh_home / "launch"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("COLUMNS", "200")
    cluster_file(ssh_home, [box, *lab.hosts])

    def run(*options: str, typed: str | None = None) -> subprocess.CompletedProcess[str]:
        words = [*COMMAND, "home", *options]
        if typed is None:
            return subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
            )
        terminal, inside = pty.openpty()
        os.write(terminal, typed.encode())
        try:
            return subprocess.run(words, stdin=inside, capture_output=True, text=True, timeout=60)
        finally:
            os.close(terminal)
            os.close(inside)

    return run


@pytest.fixture
def pins(ssh_home: Path) -> Path:
    return ssh_home / "clusters" / "home.known_hosts"


def rows(done: subprocess.CompletedProcess[str]) -> list[tuple[str, str, bool]]:
    return [(row["host"], row["status"], row["trusted"]) for row in json.loads(done.stdout)]


def test_what_lies_behind_a_jump_host_is_asked_once_that_one_is_trusted(
    trust: Trust, pins: Path, lab: Lab, ssh_home: Path
) -> None:
    one, two = lab.hosts
    (ssh_home / "clusters" / "home.yaml").write_text(
        "nodes:\n"
        f"  - {{name: one, host: {one.address}, user: {USER}, key: {lab.key}}}\n"
        f"  - {{name: two, host: {two.address}, user: {USER}, key: {lab.key}, jump: one}}\n"
    )
    unasked = trust("--json")
    assert unasked.returncode == 2 and rows(unasked) == [("one", "new", False)]
    done = trust("--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert rows(done) == [("one", "known", True), ("two", "new", True)]
    assert pins.read_text() == one.known_hosts_line() + two.known_hosts_line()


def test_new_keys_are_shown_and_asked_for(
    trust: Trust, pins: Path, lab: Lab, box: Host, ssh_home: Path
) -> None:
    (ssh_home / "known_hosts").write_text(lab.hosts[1].known_hosts_line())
    asked = trust(typed="y\n")
    assert asked.returncode == 0, asked.stderr
    assert "Trust these 2 keys? [y/N]: " in asked.stderr
    for host in (box, lab.hosts[0]):
        assert f"ED25519 {fingerprint(host)}" in asked.stderr
    assert [line.split()[0] for line in asked.stdout.splitlines()] == ["host", "box", "one", "two"]
    assert pins.read_text() == box.known_hosts_line() + lab.hosts[0].known_hosts_line()
    assert pins.stat().st_mode & 0o777 == 0o644

    before = pins.stat().st_mtime_ns
    again = trust("--json")  # all are known: nothing to ask
    assert (again.returncode, again.stderr) == (0, "")
    assert rows(again) == [("box", "known", True), ("one", "known", True), ("two", "known", True)]
    first = json.loads(again.stdout)[0]
    assert first["fingerprint"] == first["known_fingerprint"] == fingerprint(box)
    assert first["known_from"] == "clusters/home.known_hosts:1"
    assert pins.stat().st_mtime_ns == before

    loaded = load_cluster("clusters/home.yaml")
    close_all(connect_all(loaded, loaded.cluster.nodes))


def test_without_a_terminal_nothing_is_trusted(trust: Trust, pins: Path) -> None:
    done = trust("--json")
    assert done.returncode == 2
    assert rows(done) == [("box", "new", False), ("one", "new", False), ("two", "new", False)]
    assert done.stderr == (
        "error: there is no terminal to ask whether these keys are the right ones\n"
        "fix: compare the fingerprints, then: launch cluster trust home --yes\n"
    )
    assert not pins.exists()


def test_no_is_an_answer(trust: Trust, pins: Path, lab: Lab, box: Host) -> None:
    pins.write_text("".join(host.known_hosts_line() for host in lab.hosts))
    before = pins.read_text()
    done = trust(typed="n\n")
    assert done.returncode == 1
    assert f"error: box: the host key of [{box.address}]:2222 is not known" in done.stderr
    assert done.stderr.endswith("fix: launch cluster trust home\n")
    assert pins.read_text() == before


def test_a_changed_key_is_asked_for_by_name(trust: Trust, pins: Path, lab: Lab, box: Host) -> None:
    one, two = lab.hosts
    _, stranger = one.known_hosts_line().split(" ", 1)
    pins.write_text(
        f"# ours\nelsewhere {stranger}{two.address},friend {stranger}"
        f"{box.known_hosts_line()}{one.known_hosts_line()}"
    )
    old, new = fingerprint(one), fingerprint(two)
    refused = trust(typed="n\n")
    assert refused.returncode == 1
    assert "WARNING: THE HOST KEY OF two HAS CHANGED" in refused.stderr
    assert f"  was  ED25519 {old}  (clusters/home.known_hosts:3)" in refused.stderr
    assert f"  is   ED25519 {new}" in refused.stderr
    assert "error: two: HOST KEY CHANGED" in refused.stderr
    before = pins.read_text()
    unasked = trust("--yes", "--json")  # nobody has looked at it
    assert unasked.returncode == 1 and "error: two: HOST KEY CHANGED" in unasked.stderr
    assert rows(unasked)[2] == ("two", "changed", False)
    assert json.loads(unasked.stdout)[2]["known_fingerprint"] == old
    assert pins.read_text() == before
    assert trust(typed="y\n").returncode == 0
    assert pins.read_text() == (
        f"# ours\nelsewhere {stranger}friend {stranger}"
        f"{box.known_hosts_line()}{one.known_hosts_line()}{two.known_hosts_line()}"
    )


def test_a_host_that_is_off_does_not_keep_the_others(trust: Trust, pins: Path, box: Host) -> None:
    box.cut_power()
    try:
        done = trust("--yes")
    finally:
        box.boot()
    assert done.returncode == 1
    assert f"error: box: port 2222 of {box.address} is closed" in done.stderr
    assert len(pins.read_text().splitlines()) == 2
