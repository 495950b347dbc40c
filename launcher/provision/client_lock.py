"""One client at a time changes what is installed on a host."""

from __future__ import annotations

import contextlib
import functools
import secrets
import threading
import time
from collections.abc import Callable, Iterator

from launcher.errors import HostError, HostTimeout
from launcher.ssh.protocol import Connection

# It holds its owner's token, nothing when free, and is touched while it is held.
LOCK_FILE = ".launch/provision.lock"
HEARTBEAT_SECONDS = 5.0  # a dead connection is noticed after 12 s
STALE_SECONDS = 30  # of the host's own clock: its holder has gone
LOCK_POLL_SECONDS = 0.5
LOCK_WAIT_SECONDS = 3600.0
WAITING = "another client is at work there: waiting for it"
UNLOCK_SECONDS = 3.0  # Ctrl-C does not wait for a host that has gone

# flock keeps two clients apart for these lines; the file's age is what outlives a connection.
ACQUIRE_COMMAND = f"""\
mkdir -p .launch; exec 9>>{LOCK_FILE}; flock 9
age=$(($(date +%s) - $(stat -c %Y {LOCK_FILE})))
case "$(cat {LOCK_FILE})" in
  ""|TOKEN) ;;
  *) [ $age -gt {STALE_SECONDS} ] || exit 0 ;;
esac
echo TOKEN > {LOCK_FILE}; echo taken"""
HEARTBEAT_COMMAND = f'[ "$(cat {LOCK_FILE})" != TOKEN ] || touch {LOCK_FILE}'
RELEASE_COMMAND = (
    f'exec 9>>{LOCK_FILE}; flock 9; [ "$(cat {LOCK_FILE})" != TOKEN ] || : > {LOCK_FILE}'
)


@functools.cache
def client_token() -> str:
    """This process: after a lost connection it finds its own lock again and need not wait."""
    return secrets.token_hex(8)


@contextlib.contextmanager
def client_lock(
    connection: Connection,
    *,
    notify: Callable[[str], None] = lambda message: None,
    wait_seconds: float = LOCK_WAIT_SECONDS,
) -> Iterator[None]:
    """Hold the lock. `notify` hears once that another client holds it. Raises HostTimeout."""
    _acquire(connection, notify, wait_seconds)
    done = threading.Event()
    heartbeat = threading.Thread(target=_send_heartbeats, args=(connection, done), daemon=True)
    heartbeat.start()
    try:
        yield
    finally:
        done.set()
        unlock(connection)


def named(host: Connection, notify: Callable[[str], None]) -> Callable[[str], None]:
    """Return `notify` with the host's name before each message."""
    return lambda message: notify(f"{host.name}: {message}")


def unlock(connection: Connection) -> None:
    """Where this process holds it."""
    with contextlib.suppress(HostError):  # it has gone: the lock gets stale
        command = RELEASE_COMMAND.replace("TOKEN", client_token())
        connection.run(command, step="unlock", timeout=UNLOCK_SECONDS)


def _acquire(connection: Connection, notify: Callable[[str], None], wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    told = False
    while (
        connection.check(ACQUIRE_COMMAND.replace("TOKEN", client_token()), step="lock").strip()
        != "taken"
    ):
        if not told:
            notify(WAITING)
            told = True
        if time.monotonic() > deadline:
            raise HostTimeout(
                connection.name,
                f"another client has been installing for {wait_seconds:.0f} s",
                fix=f"wait for it; if there is none, rm {LOCK_FILE} on the host",
            )
        time.sleep(LOCK_POLL_SECONDS)


def _send_heartbeats(connection: Connection, done: threading.Event) -> None:
    with contextlib.suppress(HostError):
        while not done.wait(HEARTBEAT_SECONDS):
            command = HEARTBEAT_COMMAND.replace("TOKEN", client_token())
            connection.run(command, step="hold the lock")
