"""What the user is asked for at a terminal: passphrases and passwords, each once, never shown."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import USER, Host, Lab
from reach import cluster_file, make_key

CHECK = [sys.executable, "-m", "launcher.cli", "cluster", "check", "home"]


class Terminal:
    """A command at a terminal of its own. `screen`: what it has shown."""

    def __init__(self, *command: str) -> None:
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            os.execv(command[0], command)
        self.screen = ""

    def wait_for(self, pattern: str, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.screen):
            assert time.monotonic() < deadline, self.screen
            if select.select([self._end], [], [], 0.2)[0]:
                self.screen += os.read(self._end, 65536).decode()

    def type(self, text: str) -> None:
        """Once it hides what is typed."""
        while self.echoes():
            time.sleep(0.02)
        os.write(self._end, text.encode())

    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self._end)[3] & termios.ECHO)

    def interrupt(self) -> None:
        os.write(self._end, b"\x03")

    def end(self) -> int:
        """Its exit code."""
        while True:
            try:
                data = os.read(self._end, 65536)
            except OSError:  # nobody has the other end any more
                break
            if not data:
                break
            self.screen += data.decode()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        os.close(self._end)


@pytest.fixture
def place(ssh_home: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a cluster `home` of two hosts."""
    monkeypatch.chdir(ssh_home)
    monkeypatch.setenv("LAUNCH_HOME", str(ssh_home / "launch"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    cluster_file(ssh_home, lab.hosts)
    (ssh_home / "clusters" / "home.known_hosts").write_text(lab.known_hosts())
    return ssh_home


@pytest.fixture
def locked(place: Path, lab: Lab) -> Iterator[Path]:
    """The key that both hosts take, with a passphrase."""
    key = make_key(place / "locked_key", "secret")
    files = [host.home / ".ssh" / "authorized_keys" for host in lab.hosts]
    before = [file.read_text() for file in files]
    for file, text in zip(files, before, strict=True):
        file.write_text(text + key.with_suffix(".pub").read_text())
    file = place / "clusters" / "home.yaml"
    file.write_text(file.read_text().replace(str(lab.key), str(key)))
    yield key
    for file, text in zip(files, before, strict=True):
        file.write_text(text)


@pytest.fixture
def by_password(place: Path, lab: Lab) -> Iterator[Host]:
    """The second host takes passwords only: that of its user is `open sesame`."""
    two = lab.hosts[1]
    config, shadow = two.disk / "etc" / "sshd_config", two.disk / "etc" / "shadow"
    before = config.read_text(), shadow.read_text()
    digest = subprocess.check_output(["openssl", "passwd", "-6", "open sesame"], text=True).strip()
    shadow.write_text(re.sub(rf"^{USER}:[^:]*:", f"{USER}:{digest}:", before[1], flags=re.M))
    config.write_text(f"PasswordAuthentication yes\nPubkeyAuthentication no\n{before[0]}")
    two.power_cycle()
    yield two
    config.write_text(before[0])
    shadow.write_text(before[1])
    two.power_cycle()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal(*CHECK)
    yield made
    made.close()


def test_a_passphrase_is_asked_for_once_for_all_hosts(locked: Path, terminal: Terminal) -> None:
    terminal.wait_for("passphrase of .*locked_key: ")
    terminal.type("wrong\n")
    terminal.wait_for("that is not it; passphrase of .*locked_key: ")
    terminal.type("secret\n")
    assert terminal.end() == 0
    assert terminal.screen.count("passphrase of") == 2 and "answers" in terminal.screen
    assert "secret" not in terminal.screen and "wrong" not in terminal.screen


def test_no_passphrase_is_an_answer(locked: Path, terminal: Terminal) -> None:
    terminal.wait_for("passphrase of")
    terminal.type("\n")
    assert terminal.end() == 1
    assert terminal.screen.count("passphrase of") == 1
    assert "ssh-copy-id" in terminal.screen


def test_ctrl_c_at_the_question_leaves_the_terminal_as_it_was(
    locked: Path, terminal: Terminal
) -> None:
    assert terminal.echoes()
    terminal.wait_for("passphrase of")
    while terminal.echoes():
        time.sleep(0.02)
    terminal.interrupt()
    assert terminal.end() == 130
    assert terminal.echoes() and "Traceback" not in terminal.screen


def test_a_host_that_takes_passwords_only(by_password: Host, terminal: Terminal) -> None:
    terminal.wait_for(rf"password of {USER}@{by_password.address} \(two\): ")
    terminal.type("close sesame\n")
    terminal.wait_for("that is not it; password of")
    terminal.type("open sesame\n")
    assert terminal.end() == 0, terminal.screen
    assert "sesame" not in terminal.screen
    assert not list(Path(os.environ["LAUNCH_HOME"]).rglob("*"))  # it is written nowhere


def test_a_key_and_a_password(by_password: Host, place: Path, terminal: Terminal) -> None:
    """As with a one-time code: the key alone does not let in."""
    terminal.wait_for("password of")
    os.kill(terminal.pid, signal.SIGKILL)
    terminal.end()
    config = by_password.disk / "etc" / "sshd_config"
    text = config.read_text().replace("PubkeyAuthentication no", "PubkeyAuthentication yes")
    config.write_text(f"AuthenticationMethods publickey,password\n{text}")
    by_password.power_cycle()
    second = Terminal(*CHECK)
    second.wait_for("password of")
    second.type("open sesame\n")
    assert second.end() == 0, second.screen
    second.close()


def test_without_a_terminal_nobody_is_asked(by_password: Host, locked: Path) -> None:
    done = subprocess.run(CHECK, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 1 and "password of" not in done.stdout + done.stderr
    assert "is locked by a passphrase and no agent holds it" in done.stdout
