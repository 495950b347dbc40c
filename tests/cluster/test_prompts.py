"""What `launch` asks at a terminal to log in, and what it does where there is none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import PASSWORD, USER, Host, Lab
from pair import wait
from reach import add_to, cluster_file
from terminal import Terminal

PORT = 2299  # of the sshd of `box` that wants passwords
PASSPHRASE = "so Geheim"
STATUS = [sys.executable, "-m", "launcher.cli", "cluster", "status", "home"]
TWICE = """\
from launcher.config.cluster_file import load_cluster
from launcher.ssh.parallel import close_all, connect_all
loaded = load_cluster("clusters/home.yaml")
for _ in range(2):
    close_all(connect_all(loaded, loaded.cluster.nodes))
"""
WATCHING = """\
from launcher.cli.render.run_progress import RunProgress
from launcher.ssh import prompts
from launcher.ssh.parallel import in_parallel
with RunProgress(10) as progress:
    in_parallel({"one": 1}, lambda work: progress.notify(f"answer {prompts.ask('code: ')}"))
    progress.notify("end")
"""
Open = Callable[..., Terminal]


@pytest.fixture
def environment(ssh_home: Path) -> dict[str, str]:
    return {
        **os.environ, "LAUNCH_HOME": str(ssh_home / "launch"), "COLUMNS": "200",
        "TERM": "xterm",
        "PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(ssh_home),
    }  # fmt: skip


@pytest.fixture
def at_terminal(ssh_home: Path, environment: dict[str, str]) -> Iterator[Open]:
    """Runs a command, by default `launch cluster status home`, at a terminal."""
    opened = []

    def run(*words: str) -> Terminal:
        opened.append(Terminal(words or STATUS, ssh_home, environment))
        return opened[-1]

    yield run
    for terminal in opened:
        terminal.close()


@pytest.fixture
def locked(ssh_home: Path, lab: Lab, box: Host) -> Path:
    """The key that `box` and the hosts of the lab accept, locked, and a cluster of the three whose
    nodes have it."""
    authorized = box.home / ".ssh" / "authorized_keys"
    key = ssh_home / "locked"
    shutil.copy(lab.key, key)
    command = ["ssh-keygen", "-q", "-p", "-P", "", "-N", PASSPHRASE, "-f", str(key)]
    subprocess.run(command, check=True)
    text = authorized.read_text()
    public = lab.key.with_suffix(".pub").read_text()
    authorized.write_text(text if public in text else text + public)
    path = cluster_file(ssh_home, [box, *lab.hosts])
    lines = path.read_text().replace(str(box.lab.key), str(key)).replace(str(lab.key), str(key))
    path.write_text(lines)
    path.with_suffix(".known_hosts").write_text(box.known_hosts_line() + lab.known_hosts())
    return key


@pytest.fixture
def with_password(ssh_home: Path, box: Host) -> Callable[..., None]:
    """A cluster of `box` by its other sshd."""

    def write(key: Path | None = None) -> None:
        path = cluster_file(ssh_home, [box])
        text = path.read_text().replace(f"port: {box.port}", f"port: {PORT}")
        path.write_text(text.replace(str(box.lab.key), str(key or box.lab.key)))
        path.with_suffix(".known_hosts").write_text(box.known_hosts_line(PORT))

    write()
    return write


def reached(stdout: str) -> dict[str, str]:
    return {row["node"]: row["status"] for row in json.loads(stdout)}


def test_a_passphrase_is_asked_once_for_all_hosts(at_terminal: Open, locked: Path) -> None:
    terminal = at_terminal(*STATUS, "--json")
    for typed in ("wrong", PASSPHRASE):
        terminal.expect("passphrase of ~/locked: ")
        assert not terminal.echoes
        terminal.type(f"{typed}\n")
    assert terminal.end() == 0, terminal.shown
    assert terminal.shown.count("passphrase") == 2
    assert PASSPHRASE not in terminal.shown and terminal.echoes
    assert reached(terminal.stdout) == {"box": "down", "one": "down", "two": "down"}


def test_a_locked_key_that_an_agent_holds_is_not_asked_for(
    at_terminal: Open, locked: Path, lab: Lab, agent: Path
) -> None:
    """No public part is beside it: it is in the locked file."""
    add_to(agent, lab.key)
    terminal = at_terminal()
    assert terminal.end() == 0, terminal.shown
    assert "passphrase of" not in terminal.shown


@pytest.mark.parametrize("typed", [[""], ["a", "b", "c"]])
def test_without_the_passphrase_the_key_is_not_tried(
    at_terminal: Open, locked: Path, typed: list[str]
) -> None:
    terminal = at_terminal()
    for passphrase in typed:
        terminal.expect("passphrase of ~/locked: ")
        terminal.type(f"{passphrase}\n")
    assert terminal.end() == 1
    assert terminal.shown.count("passphrase of") == len(typed)
    assert f"not tried: {locked} is locked by a passphrase, and no right one" in terminal.shown
    assert f"fix: ssh-add {locked}   or: ssh-copy-id" in terminal.shown


@pytest.mark.parametrize("batch", [False, True])
def test_without_a_terminal_nobody_is_asked(
    ssh_home: Path, environment: dict[str, str], at_terminal: Open, locked: Path, batch: bool
) -> None:
    if batch:
        with (ssh_home / "ssh_config").open("a") as file:
            file.write("BatchMode yes\n")
        terminal = at_terminal()
        assert (terminal.end(), "passphrase of" in terminal.shown) == (1, False)
        said = terminal.shown
    else:
        done = subprocess.run(
            STATUS, cwd=ssh_home, env=environment, stdin=subprocess.DEVNULL,
            start_new_session=True, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 1
        said = done.stderr
    assert f"not tried: {locked} is locked by a passphrase and no agent holds it" in said
    assert f"fix: ssh-add {locked}   or: ssh-copy-id" in said


def test_a_host_that_takes_passwords(
    at_terminal: Open, box: Host, ssh_home: Path, with_password: Callable[..., None]
) -> None:
    """A host is not asked twice for what it has accepted: not when it is reached again either."""
    with box.other_sshd(PORT, "PasswordAuthentication=yes", "AuthenticationMethods=password"):
        terminal = at_terminal(sys.executable, "-c", TWICE)
        for typed in ("wrong", PASSWORD):
            terminal.expect(f"password of {USER}@{box.address} (box): ")
            assert not terminal.echoes
            terminal.type(f"{typed}\n")
        assert terminal.end() == 0, terminal.shown
        assert terminal.shown.count("password of") == 2
        refused = at_terminal()
        for _ in range(3):
            refused.expect("password of ")
            refused.type("wrong\n")
        assert refused.end() == 1
    assert (
        f"error: box: {USER}@{box.address} takes no keys, only password\n"
        "  what was typed is not accepted\n" in refused.shown
    )
    left = [path for path in ssh_home.rglob("*") if path.is_file()]
    assert not any(PASSWORD in path.read_text(errors="replace") for path in left)


@pytest.mark.parametrize("second", ["password", "keyboard-interactive"])
def test_a_password_besides_a_key(
    at_terminal: Open, box: Host, with_password: Callable[..., None], second: str,
    ssh_home: Path, environment: dict[str, str],
) -> None:  # fmt: skip
    options = ["UsePAM=yes", "KbdInteractiveAuthentication=yes"]
    if second == "password":
        options = ["PasswordAuthentication=yes"]
    with box.other_sshd(PORT, *options, f"AuthenticationMethods=publickey,{second}"):
        terminal = at_terminal()
        terminal.expect(f"password of {USER}@{box.address} (box): ")
        terminal.type(f"{PASSWORD}\n")
        assert terminal.end() == 0, terminal.shown
        done = subprocess.run(
            STATUS, cwd=ssh_home, env=environment, stdin=subprocess.DEVNULL,
            start_new_session=True, capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    assert f"wants {second} besides a key, and there is no terminal" in done.stderr


def test_a_password_where_no_key_is_accepted(
    at_terminal: Open, box: Host, with_password: Callable[..., None], ssh_home: Path
) -> None:
    key = ssh_home / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    with_password(key)
    with box.other_sshd(PORT, "PasswordAuthentication=yes"):
        terminal = at_terminal()
        terminal.expect("password of ")
        terminal.type(f"{PASSWORD}\n")
        assert terminal.end() == 0, terminal.shown
        refused = at_terminal()
        refused.expect("password of ")
        refused.type("\n")
        assert refused.end() == 1
    assert f"accepts none of these keys: {key}\nfix: ssh-copy-id -p {PORT}" in refused.shown


def test_ctrl_c_at_a_question_leaves_the_terminal_as_it_was(
    at_terminal: Open, locked: Path
) -> None:
    terminal = at_terminal()
    terminal.expect("passphrase of ")
    assert not terminal.echoes
    terminal.type("half\x03")
    assert terminal.end() == 130
    assert terminal.echoes and "interrupted" in terminal.shown


def test_a_question_stops_what_draws_on_the_terminal(at_terminal: Open) -> None:
    terminal = at_terminal(sys.executable, "-c", WATCHING)
    terminal.expect("code: ")
    terminal.look_for(0.5)  # a bar draws itself ten times in it
    assert terminal.shown.endswith("code: ")
    terminal.type("12\n")
    assert terminal.end() == 0
    assert "answer 12" in terminal.shown and "end" in terminal.shown


def test_a_host_that_hangs_up_while_the_user_types_is_reached_again(
    at_terminal: Open, box: Host, with_password: Callable[..., None]
) -> None:
    """sshd waits 120 s for a login, here 4."""
    options = ("PasswordAuthentication=yes", "AuthenticationMethods=password", "LoginGraceTime=4")
    with box.other_sshd(PORT, *options):
        terminal = at_terminal()
        terminal.expect("password of ")
        sessions = f"ss -tnH state established '( sport = :{PORT} )'"
        wait(lambda: not box.inside(sessions), 20, "sshd to hang up")
        terminal.type(f"{PASSWORD}\n")
        assert terminal.end() == 0, terminal.shown
    assert terminal.shown.count("password of") == 1
