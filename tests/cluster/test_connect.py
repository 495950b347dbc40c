"""Getting to a host and losing it: each fault names the host, the cause and the fix."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from lab import Host, Lab
from reach import Connect, add_to, fingerprint, make_key

from launcher.errors import (
    ConnectionLost,
    HostError,
    KeyChanged,
    LoginRefused,
    Unreachable,
    Untrusted,
)


@pytest.mark.parametrize("form", ["plain", "hashed", "pattern", "user", "other port"])
def test_a_known_host_key(connected: Connect, box: Host, ssh_home: Path, form: str) -> None:
    line = box.known_hosts_line()
    _, rest = line.split(" ", 1)
    if form == "hashed":
        file = ssh_home / "hashed"
        file.write_text(line)
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True)
        line = file.read_text()
        assert line.startswith("|1|")
    elif form == "pattern":
        line = f"!nobody,[198.18.*]:22?2 {rest}"
    elif form == "user":
        (ssh_home / "known_hosts").write_text(f"# mine\n\n{line}")
        line = ""
    elif form == "other port":
        line = f"{box.address} {rest}"
    assert connected(box, pinned=line).check("echo hi", step="a test") == "hi\n"


def test_an_unknown_host_key(connected: Connect, box: Host) -> None:
    with pytest.raises(Untrusted) as raised:
        connected(box, pinned="")
    place = f"[{box.address}]:2222"
    said = f"box: the host key of {place} is not known: ED25519 {fingerprint(box)}"
    assert (raised.value.message, raised.value.fix) == (said, "launch cluster trust home")


def test_a_changed_host_key(connected: Connect, box: Host, ssh_home: Path) -> None:
    old, line = fingerprint(box), box.known_hosts_line()
    box.cut_power()
    box.new_host_key()
    box.boot()
    (ssh_home / "known_hosts").write_text(box.known_hosts_line())  # a pin weighs more
    with pytest.raises(KeyChanged) as raised:
        connected(box, pinned=f"# of the cluster\n{line}")
    assert raised.value.message.splitlines()[:3] == [
        f"box: HOST KEY CHANGED: [{box.address}]:2222 is not the machine it was, or says so",
        f"  known:   ED25519 {old}  ({ssh_home}/home.known_hosts:2)",
        f"  offered: ED25519 {fingerprint(box)}",
    ]
    assert raised.value.fix == "only if you know why the key changed: launch cluster trust home"
    with pytest.raises(Untrusted, match=r"is marked @revoked in .*home\.known_hosts:1"):
        connected(box, pinned=f"@revoked {box.known_hosts_line()}{box.known_hosts_line()}")
    connected(box).close()


def test_a_host_shows_the_key_that_is_known(connected: Connect, box: Host) -> None:
    """It has two: RSA, which is the known one, and ED25519, which would be preferred."""
    etc = box.disk / "etc"
    config = (etc / "sshd_config").read_text()
    rsa = etc / "ssh_host_rsa_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", rsa], check=True)
    (etc / "sshd_config").write_text(f"{config}HostKey {rsa}\n")
    box.cut_power()
    box.boot()
    kind, key, *_ = rsa.with_suffix(".pub").read_text().split()
    pinned = f"[{box.address}]:2222 {kind} {key}\n"
    assert connected(box, pinned=pinned).check("echo hi", step="a test") == "hi\n"
    (etc / "sshd_config").write_text(config)
    box.cut_power()
    box.boot()
    with pytest.raises(KeyChanged, match=r"known:   RSA .*\n  offered: ED25519"):
        connected(box, pinned=pinned)


def test_wrong_user_and_wrong_key(
    connected: Connect, box: Host, ssh_home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LoginRefused) as raised:
        connected(box, user="nobody")
    who = f"nobody@{box.address}"
    assert raised.value.message == f"box: {who} accepts none of these keys: {box.lab.key}"
    assert raised.value.fix == (
        f"ssh-copy-id -p 2222 {who}   or correct `user:` and `key:` of node 'box'"
    )
    with pytest.raises(LoginRefused, match=r"accepts none of these keys: .*/wrong"):
        connected(box, key=str(make_key(ssh_home / "wrong")))
    with pytest.raises(LoginRefused, match="there is no key here to log in to ada@"):
        connected(box, key=None)
    locked = make_key(ssh_home / "locked", "secret")
    with pytest.raises(LoginRefused, match=r"not tried: .*/locked is locked by a pass") as raised:
        connected(box, key=str(locked))
    assert (raised.value.fix or "").startswith(f"ssh-add {locked}   or: ssh-copy-id")
    with pytest.raises(HostError, match="box: its key /none is not a file"):
        connected(box, key="/none")
    assert capfd.readouterr() == ("", "")


def test_keys_of_an_agent(connected: Connect, box: Host, ssh_home: Path, agent: Path) -> None:
    """sshd hangs up after six keys: the node's own comes first, wherever it is."""
    assert connected(box).check("echo file", step="a test") == "file\n"
    with pytest.raises(LoginRefused, match=r"hung up after 6 keys: other\d \(agent\), other"):
        connected(box, key=None)
    add_to(agent, box.lab.key)
    public = ssh_home / "mine.pub"  # only the public part is a file here
    shutil.copy(box.lab.key.with_suffix(".pub"), public)
    assert connected(box, key=str(public)).check("echo agent", step="a test") == "agent\n"
    with (ssh_home / "ssh_config").open("a") as file:
        file.write("IdentitiesOnly yes\n")
    with pytest.raises(LoginRefused, match="there is no key here"):
        connected(box, key=None)


def test_hosts_that_do_not_answer(
    connected: Connect, box: Host, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Unreachable) as raised:
        connected(box, port=2223)
    address = box.address
    assert raised.value.message == (
        f"box: port 2223 of {address} is closed: no SSH server answers there"
    )
    assert "`port:` of node 'box'" in (raised.value.fix or "")
    with pytest.raises(Unreachable, match=r"box: there is no host of the name box\.invalid"):
        connected(box, host="box.invalid")
    with socket.create_server((box.lab.gateway, 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            with listener.accept()[0] as client:
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Unreachable, match=f"box: .* port {port} answers, but not as an SSH"):
            connected(box, host=box.lab.gateway, port=port)
        thread.join()
    box.unplug()
    try:
        begun = time.monotonic()
        with pytest.raises(Unreachable, match=f"box: no (answer from|way to) {address}") as raised:
            connected(box)
        assert time.monotonic() - begun < 10.5
        assert "check that the machine is on" in (raised.value.fix or "")
    finally:
        box.plug()
    assert capfd.readouterr() == ("", "")


def test_a_cable_pulled_for_five_seconds_and_one_for_good(
    connected: Connect, lab: Lab, box: Host
) -> None:
    """The first command goes on. The other one ends within 14 s, and so does an idle connection."""
    short, idle, dead = connected(lab.hosts[0]), connected(lab.hosts[0]), connected(box)
    ended: dict[str, float] = {}
    outputs: list[str] = []

    def survive() -> None:
        outputs.append(short.check("seq 5; sleep 6; seq 5", step="counting"))

    def die() -> None:
        begun = time.monotonic()
        with pytest.raises(ConnectionLost, match=r"box: .* was lost during: waiting"):
            dead.check("sleep 60", step="waiting", timeout=50)
        ended["dead"] = time.monotonic() - begun

    threads = [threading.Thread(target=work) for work in (survive, die)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    lab.hosts[0].unplug()
    box.unplug()
    try:
        time.sleep(5)
        lab.hosts[0].plug()
        for thread in threads:
            thread.join()
    finally:
        lab.hosts[0].plug()
        box.plug()
    assert 8 < ended["dead"] < 14
    assert outputs == ["1\n2\n3\n4\n5\n" * 2]
    assert idle.check("echo still", step="a test") == "still\n"
    with pytest.raises(ConnectionLost):
        dead.read("anything")
