"""Work on hosts over SSH: commands, files, tunnels, several hosts at once."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import USER, Host, Lab
from reach import Connect, cluster_file, target

from launcher.config.cluster_file import load_cluster
from launcher.errors import (
    CommandFailed,
    ConnectionLost,
    DiskFull,
    HostsFailed,
    HostTimeout,
    LoginRefused,
)
from launcher.ssh.connection import SshConnection, connect
from launcher.ssh.parallel import call_on_all, close_all, connect_all
from launcher.ssh.protocol import Completed, Connection

MB = 1 << 20


@pytest.fixture(scope="module")
def shared(box: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshConnection]:
    """One connection for all that leaves it as it was."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAUNCH_SSH_CONFIG", "none")
        connection = connect(target(box, tmp_path_factory.mktemp("shared")))
    yield connection
    connection.close()


@pytest.mark.parametrize(
    ("script", "stdin", "done"),
    [
        ("echo out; echo err >&2; exit 3", b"", Completed(3, "out\n", "err\n")),
        ("pwd; whoami; hostname", b"", Completed(0, f"/home/{USER}\n{USER}\nbox\n", "")),
        ("printf '%s|' 'a\"b' \"c'd\" '\\\\n' '!x' 'ü$HOME'", b"",
         Completed(0, "a\"b|c'd|\\\\n|!x|ü$HOME|", "")),
        ("if true\nthen\n\tcat <<'END'\n\\tab\nEND\nfi", b"", Completed(0, "\\tab\n", "")),
        ("cat; wc -c", b"abc", Completed(0, "abc0\n", "")),
        ("wc -c", bytes(range(256)) * 4096, Completed(0, "1048576\n", "")),
        ("exit 0", b"nobody reads this" * 300_000, Completed(0, "", "")),
        ("printf 'a\\377b'", b"", Completed(0, "a\ufffdb", "")),
        ("kill -9 $$", b"", Completed(-1, "", "")),
        ("nonsense", b"", Completed(127, "", "sh: 1: nonsense: not found\n")),
    ],
)  # fmt: skip
def test_a_command(shared: SshConnection, script: str, stdin: bytes, done: Completed) -> None:
    assert shared.run(script, step="a test", stdin=stdin) == done


def test_much_in_all_three_directions_at_once(shared: SshConnection) -> None:
    data = b"0123456789abcdef" * (4 * MB // 16)
    done = shared.run("tee /dev/stderr", step="a test", stdin=data)
    assert (done.stdout.encode(), done.stderr.encode()) == (data, data)


def test_what_a_login_shell_prints_is_left_out(shared: SshConnection, box: Host) -> None:
    (box.home / ".bashrc").write_text("echo welcome; echo -n 'to box: '\n")
    assert shared.check("echo x", step="a test") == "x\n"
    (box.home / ".bashrc").unlink()


def test_a_command_that_fails(shared: SshConnection) -> None:
    with pytest.raises(CommandFailed) as raised:
        shared.check("seq 100 >&2\nexit 7", step="counting")
    lines = raised.value.message.splitlines()
    assert lines[0] == "box: counting failed with exit status 7"
    assert lines[1] == "  command: seq 100 >&2 exit 7"
    assert lines[2:] == [f"  {number}" for number in range(89, 101)]


def test_a_command_that_takes_too_long_is_killed(shared: SshConnection, box: Host) -> None:
    begun = time.monotonic()
    with pytest.raises(HostTimeout, match=r"box: napping took longer than 0\.3 s"):
        shared.run("sleep 4321; sleep 4322", step="napping", timeout=0.3)
    assert time.monotonic() - begun < 2
    deadline = time.monotonic() + 20
    while any("sleep" in command for command in box.processes()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_more_commands_than_sshd_has_sessions(shared: SshConnection) -> None:
    numbers: list[str] = []

    def call(number: int) -> None:
        numbers.append(shared.check(f"sleep 0.1; echo {number}", step="a test").strip())

    threads = [threading.Thread(target=call, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, numbers)) == list(range(24))


def test_sessions_that_are_refused_together_all_come_later(
    connected: Connect, box: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sshd refuses eight of eighteen at a time, again and again, until the first ones end."""
    monkeypatch.setattr("launcher.ssh.sessions.MAX_SESSIONS", 18)
    connection = connected(box)
    statuses: list[int] = []

    def call() -> None:
        statuses.append(connection.run("sleep 1", step="a test").status)

    threads = [threading.Thread(target=call) for _ in range(18)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0] * 18


def test_small_files(shared: SshConnection, box: Host) -> None:
    data = bytes(range(256)) * 1000
    shared.write("a b/it's/new", b"old")
    shared.write("a b/it's/new", data, mode=0o600)
    written = box.home / "a b" / "it's" / "new"
    assert written.read_bytes() == data
    assert written.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in written.parent.iterdir()] == ["new"]
    assert shared.read("a b/it's/new") == data
    assert shared.read(f"/home/{USER}/a b/it's/new", 255_990) == data[255_990:]
    assert shared.read("a b/it's/new", 300_000) == b""
    with pytest.raises(FileNotFoundError, match="box:a b/none"):
        shared.read("a b/none")
    with pytest.raises(CommandFailed, match="reading /etc/shadow failed: permission denied"):
        shared.read("/etc/shadow")
    with pytest.raises(CommandFailed, match=r"writing /etc/mine failed[^\n]*\n.*ermission denied"):
        shared.write("/etc/mine", b"")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large"
    path.write_bytes(os.urandom(48 * MB + 12_345))
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_large_file_goes_and_comes(
    shared: SshConnection, box: Host, large: Path, tmp_path: Path
) -> None:
    size, sha256, seen = large.stat().st_size, digest(large), list[int]()
    shared.send(large, "new/a wheel.whl", sha256=sha256, on_bytes=seen.append)
    there = box.home / "new" / "a wheel.whl"
    assert (digest(there), seen[-1], seen) == (sha256, size, sorted(seen))
    before = there.stat()
    shared.send(large, "new/a wheel.whl", sha256=sha256, on_bytes=(again := list[int]()).append)
    assert (there.stat().st_mtime_ns, again) == (before.st_mtime_ns, [size])
    back = tmp_path / "down" / "a wheel.whl"
    shared.fetch("new/a wheel.whl", back, sha256=sha256, on_bytes=(fetched := []).append)
    assert (digest(back), fetched[-1]) == (sha256, size)
    with pytest.raises(FileNotFoundError, match="box:new/none"):
        shared.fetch("new/none", tmp_path / "down" / "none", sha256=sha256)
    for folder in (there.parent, back.parent):
        assert [path.name for path in folder.iterdir()] == ["a wheel.whl"]


def test_a_cut_off_transfer_goes_on_where_it_was(
    connected: Connect, box: Host, large: Path, tmp_path: Path
) -> None:
    def cut(done: int) -> None:
        if done > 8 * MB:
            box.cut_power()

    connection = connected(box)
    begun = time.monotonic()
    with pytest.raises(ConnectionLost, match=r"box: the connection to .* was lost during: sending"):
        connection.send(large, "resumed", sha256=digest(large), on_bytes=cut)
    assert time.monotonic() - begun < 5
    box.boot()
    partial = box.home / "resumed.partial"
    kept = partial.stat().st_size
    assert 4 * MB < kept < large.stat().st_size
    connection, seen = connected(box), list[int]()
    connection.send(large, "resumed", sha256=digest(large), on_bytes=seen.append)
    assert seen[0] > kept
    assert (digest(box.home / "resumed"), partial.exists()) == (digest(large), False)

    back = tmp_path / "back"
    with pytest.raises(ConnectionLost, match="fetching resumed"):
        connection.fetch("resumed", back, sha256=digest(large), on_bytes=cut)
    box.boot()
    kept = (tmp_path / "back.partial").stat().st_size
    seen.clear()
    connected(box).fetch("resumed", back, sha256=digest(large), on_bytes=seen.append)
    assert (seen[0] > kept > 8 * MB, digest(back)) == (True, digest(large))


def test_a_wrong_hash(shared_again: SshConnection, box: Host, tmp_path: Path) -> None:
    local, wrong = tmp_path / "file", hashlib.sha256(b"other").hexdigest()
    local.write_bytes(b"right" * 1000)
    for stale in (b"x" * 5000, b"x" * 4999, b"x" * 6000):  # sent once more, from the beginning
        (box.home / "f.partial").write_bytes(stale)
        (box.home / "f.partial").chmod(0o666)
        shared_again.send(local, "f", sha256=digest(local))
        assert (box.home / "f").read_bytes() == local.read_bytes()
        (box.home / "f").unlink()
    with pytest.raises(CommandFailed, match="is not the file that f is to be"):
        shared_again.send(local, "f", sha256=wrong)
    assert not list(box.home.glob("f*"))
    shared_again.write("f", b"right")
    (tmp_path / "g.partial").write_bytes(b"wrong!")
    shared_again.fetch("f", tmp_path / "g", sha256=hashlib.sha256(b"right").hexdigest())
    assert (tmp_path / "g").read_bytes() == b"right"
    with pytest.raises(CommandFailed, match="f is not the file that was asked for"):
        shared_again.fetch("f", tmp_path / "h", sha256=wrong)
    assert not list(tmp_path.glob("h[.]*"))


@pytest.fixture
def shared_again(connected: Connect, box: Host) -> SshConnection:
    return connected(box)


def test_a_full_disk(connected: Connect, box: Host, large: Path) -> None:
    box.small_disk(f"/home/{USER}/small", 4)
    connection = connected(box)
    said = r"box: its disk is full, 4\.1\d? MB are free: {} failed\n  .*No space left on"
    with pytest.raises(DiskFull, match=said.replace("{}", "sending small/deep/f")):
        connection.send(large, "small/deep/f", sha256=digest(large))
    with pytest.raises(DiskFull, match=said.replace("{}", "writing small/deep/f")):
        connection.write("small/deep/f", bytes(8 * MB))
    assert connection.check("ls -A small/deep", step="a test") == ""
    with pytest.raises(DiskFull, match="box: its disk is full: unpacking failed"):
        connection.check("head -c 8M /dev/zero > small/x", step="unpacking")


def test_many_files_at_once_over_one_connection(
    connected: Connect, box: Host, tmp_path: Path
) -> None:
    connection = connected(box)
    connection.write("meanwhile", b"read meanwhile")
    files = [tmp_path / f"f{number}" for number in range(12)]
    for file in files:
        file.write_bytes(os.urandom(3 * MB))
    threads = [
        threading.Thread(
            target=connection.send, args=(file, f"many/{file.name}"),
            kwargs={"sha256": digest(file)},
        )
        for file in files
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert connection.read("meanwhile") == b"read meanwhile"
    for file in files:
        assert digest(box.home / "many" / file.name) == digest(file)


SERVER = """\
import http.server, threading, socket
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(data[::-1])
    def log_message(self, *_): pass
web = http.server.ThreadingHTTPServer(("127.0.0.1", 8801), Handler)
threading.Thread(target=web.serve_forever, daemon=True).start()
count = socket.create_server(("127.0.0.1", 8802))
print("ready", flush=True)
while True:
    client, _ = count.accept()
    total = 0
    while data := client.recv(65536): total += len(data)
    client.sendall(str(total).encode())
    client.close()
"""


def test_a_tunnel(connected: Connect, box: Host, tmp_path: Path) -> None:
    connection = connected(box)
    connection.write("server.py", SERVER.encode())
    connection.check(
        "python3 server.py > ready 2>&1 < /dev/null & while ! grep -qs ready ready; "
        "do sleep 0.05; done", step="serving",
    )  # fmt: skip
    web = connection.forward(8801)
    bodies = [os.urandom(MB) for _ in range(8)]
    answers: dict[int, bytes] = {}

    def post(number: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{web.port}/", data=bodies[number]) as reply:
            answers[number] = reply.read()

    threads = [threading.Thread(target=post, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[number] for number in range(8)] == [body[::-1] for body in bodies]

    half = connection.forward(8802)  # answers only once we have said all
    with socket.create_connection(("127.0.0.1", half.port)) as client:
        client.sendall(bytes(3 * MB))
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == str(3 * MB).encode()
        assert client.recv(100) == b""
    nobody = connection.forward(8803)
    with socket.create_connection(("127.0.0.1", nobody.port)) as client:
        assert client.recv(100) == b""
    with pytest.raises(OSError, match="in use"):
        connection.forward(8801, local_port=web.port)
    web.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", web.port))
    connection.check("pkill -f '[s]erver.py'", step="stopping")


def connect_to(folder: Path, hosts: list[Host], **users: str) -> dict[str, Connection]:
    loaded = load_cluster(str(cluster_file(folder, hosts, **users)))
    loaded.known_hosts.write_text("".join(host.known_hosts_line() for host in hosts))
    return connect_all(loaded, loaded.cluster.nodes)


def test_several_hosts(lab: Lab, box: Host, ssh_home: Path) -> None:
    connections = connect_to(ssh_home, [box, *lab.hosts])
    try:
        assert list(connections) == ["box", "one", "two"]
        begun = time.monotonic()
        names = call_on_all(connections, lambda c: c.check("sleep 1; hostname", step="asking"))
        assert names == {"box": "box\n", "one": "one\n", "two": "two\n"}
        assert time.monotonic() - begun < 2.5
        with pytest.raises(HostsFailed) as several:
            call_on_all(connections, lambda c: c.check("! hostname | grep o", step="asking"))
        assert [error.host for error in several.value.errors] == ["box", "one", "two"]
        with pytest.raises(CommandFailed, match="box: asking failed"):
            call_on_all(connections, lambda c: c.check("! hostname | grep b", step="asking"))
        with pytest.raises(ZeroDivisionError):
            call_on_all(connections, lambda c: 1 // (c.name != "one"))
    finally:
        close_all(connections)


def test_no_host_stays_connected_where_one_fails(lab: Lab, box: Host, ssh_home: Path) -> None:
    before = threading.active_count()
    with pytest.raises(LoginRefused, match="two: nobody@"):
        connect_to(ssh_home, [box, *lab.hosts], two="nobody")
    with pytest.raises(HostsFailed) as raised:
        connect_to(ssh_home, [box, *lab.hosts], two="nobody", box="root")
    assert [error.host for error in raised.value.errors] == ["box", "two"]
    deadline = time.monotonic() + 2
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
