"""Hosts that are not reached directly: behind jump hosts, or by a command of the user's own."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
from lab import USER, Host, Lab
from reach import Connect

from launcher.errors import HostError, LoginRefused, Unreachable, Untrusted
from launcher.ssh.connection import SshConnection
from launcher.ssh.host_transport import hang_up


def configure(ssh_home: Path, text: str) -> None:
    """More of the user's ssh configuration."""
    with (ssh_home / "ssh_config").open("a") as file:
        file.write(text)


def log_in_with(ssh_home: Path, lab: Lab) -> None:
    """The lab's user and key, for hosts that no cluster file describes."""
    configure(ssh_home, f"Host *\n User {USER}\n IdentityFile {lab.key}\n")


def both(*hosts: Host) -> str:
    return "".join(host.known_hosts_line() for host in hosts)


def seen_by(connection: SshConnection) -> str:
    """The address from which a host is reached, as it says."""
    return connection.check('echo "${SSH_CONNECTION%% *}"', step="who is there").strip()


def test_a_host_behind_a_jump_host(connected: Connect, lab: Lab, ssh_home: Path) -> None:
    one, two = lab.hosts
    log_in_with(ssh_home, lab)
    configure(ssh_home, f"Host gate\n HostName {one.address}\n")
    connection = connected(two, jump="gate", pinned=both(one, two))
    assert seen_by(connection) == one.address
    content = os.urandom(3 << 20)  # more than a channel's window
    (ssh_home / "file").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    connection.send(ssh_home / "file", "through", sha256=digest)
    assert (two.home / "through").read_bytes() == content
    (two.home / "through").unlink()


def test_hosts_behind_one_jump_host_share_the_way(
    connected: Connect, lab: Lab, ssh_home: Path
) -> None:
    one, two = lab.hosts
    log_in_with(ssh_home, lab)
    jump = f"ada@{one.address}"
    pins = both(one, two)
    ways = [connected(two, jump=jump, pinned=pins) for _ in range(3)]
    sessions = f"ss -tnH state established '( sport = :22 )' src {one.address}"
    assert len(one.inside(sessions).splitlines()) == 1
    for way in ways:
        way.close()
    deadline = time.monotonic() + 5
    while one.inside(sessions) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not one.inside(sessions)


@pytest.mark.parametrize("ended_by", ["us", "its thread"])
def test_a_jump_host_that_goes_while_hosts_behind_it_hang_up_leaves_no_traceback(
    connected: Connect, lab: Lab, ssh_home: Path, monkeypatch: pytest.MonkeyPatch, ended_by: str
) -> None:
    """Seen once in `launch cluster check`: paramiko's thread of the host behind closed its channel
    just after the jump host's connection had ended. Python prints what a thread lets out."""
    let_out: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", let_out.append)
    one, two = lab.hosts
    log_in_with(ssh_home, lab)
    behind = connected(two, jump=f"ada@{one.address}", pinned=both(one, two))._transport
    to_jump_host = behind.sock.get_transport()  # its socket is a channel of that connection
    refused = Mock(side_effect=EOFError)
    monkeypatch.setattr(to_jump_host, "_send_user_message", refused)
    if ended_by == "us":
        hang_up(behind)
    else:
        behind.active = False  # seen by its thread at its next poll
    behind.join(5)
    assert refused.called and not behind.is_alive()
    assert let_out == []


def test_a_chain_of_jump_hosts(connected: Connect, lab: Lab, ssh_home: Path) -> None:
    one, two = lab.hosts
    log_in_with(ssh_home, lab)
    chain = f"{one.address},{two.address}"
    connection = connected(one, jump=chain, pinned=both(one, two))
    assert seen_by(connection) == two.address


@pytest.mark.parametrize(
    ("jump", "pinned", "port", "error", "said"),
    [
        ("{one}", "two", 22, Untrusted, "two: its jump host {one}: the host key of {one} is not"),
        ("nobody@{one}", "both", 22, LoginRefused,
         "two: its jump host {one}: nobody@{one} accepts none of these keys"),
        ("{one}:2299", "both", 22, Unreachable, "two: its jump host {one}: port 2299 of {one} is"),
        ("{one}", "both", 2299, Unreachable,
         "two: its jump host {one} does not reach {two} port 2299"),
    ],
)  # fmt: skip
def test_what_goes_wrong_on_the_way(
    connected: Connect, lab: Lab, ssh_home: Path, jump: str, pinned: str, port: int,
    error: type[HostError], said: str,
) -> None:  # fmt: skip
    one, two = lab.hosts
    log_in_with(ssh_home, lab)
    places = {"one": one.address, "two": two.address}
    pins = {"both": both(one, two), "two": two.known_hosts_line()}[pinned]
    with pytest.raises(error) as raised:
        connected(two, jump=jump.format(**places), port=port, pinned=pins)
    assert raised.value.message.startswith(said.format(**places))
    assert raised.value.host == "two" and raised.value.fix


def test_a_command_of_the_users_own(connected: Connect, lab: Lab, ssh_home: Path) -> None:
    two = lab.hosts[1]
    program = ssh_home / "way.py"
    program.write_text(
        "import os, socket, sys, threading\n"
        "far = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def back():\n"
        "    while data := far.recv(65536): os.write(1, data)\n"
        "    os._exit(0)\n"
        "threading.Thread(target=back).start()\n"
        "while data := os.read(0, 65536): far.sendall(data)\n"
        "os._exit(0)\n"
    )
    configure(ssh_home, f"Host *\n ProxyCommand {sys.executable} {program} %h %p\n")
    connection = connected(two)
    assert connection.check("echo hi", step="a test") == "hi\n"
    connection.close()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("sh -c 'echo no such tunnel >&2; exit 3'", "ended with exit status 3: no such tunnel"),
        ("echo hello", "its ProxyCommand ended with exit status 0"),
    ],
)
def test_a_command_that_leads_nowhere(
    connected: Connect, lab: Lab, ssh_home: Path, command: str, said: str
) -> None:
    configure(ssh_home, f"Host *\n ProxyCommand {command}\n")
    with pytest.raises(Unreachable, match=said) as raised:
        connected(lab.hosts[1])
    assert raised.value.fix and "correct ProxyCommand" in raised.value.fix
