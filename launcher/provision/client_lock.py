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

FILE = ".launch/provision.lock"  # the holder's token; empty when free; touched while it is held
BEAT_SECONDS = 5.0  # a dead connection is noticed after 12 s
STALE_SECONDS = 30  # of the host's own clock: its holder has gone
POLL_SECONDS = 0.5
WAIT_SECONDS = 3600.0
UNLOCK_SECONDS = 3.0  # Ctrl-C does not wait for a host that has gone

# flock keeps two clients apart for these lines; the file's age is what outlives a connection.
TAKE = f"""\
mkdir -p .launch; exec 9>>{FILE}; flock 9
age=$(($(date +%s) - $(stat -c %Y {FILE})))
case "$(cat {FILE})" in
  ""|TOKEN) ;;
  *) [ $age -gt {STALE_SECONDS} ] || exit 0 ;;
esac
echo TOKEN > {FILE}; echo taken"""
BEAT = f'[ "$(cat {FILE})" != TOKEN ] || touch {FILE}'
GIVE = f'exec 9>>{FILE}; flock 9; [ "$(cat {FILE})" != TOKEN ] || : > {FILE}'


@functools.cache
def own_token() -> str:
    """This process: after a lost connection it finds its own lock again and need not wait."""
    return secrets.token_hex(8)


@contextlib.contextmanager
def client_lock(
    connection: Connection,
    *,
    waiting: Callable[[], None] = lambda: None,
    wait_seconds: float = WAIT_SECONDS,
) -> Iterator[None]:
    """Hold it. `waiting` is called once where another client does. Raises HostTimeout."""
    _take(connection, waiting, wait_seconds)
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(connection, done), daemon=True)
    beat.start()
    try:
        yield
    finally:
        done.set()
        unlock(connection)


def unlock(connection: Connection) -> None:
    """Where this process holds it."""
    with contextlib.suppress(HostError):  # it has gone: the lock gets stale
        connection.run(GIVE.replace("TOKEN", own_token()), step="unlock", timeout=UNLOCK_SECONDS)


def _take(connection: Connection, waiting: Callable[[], None], wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    told = False
    while connection.check(TAKE.replace("TOKEN", own_token()), step="lock").strip() != "taken":
        if not told:
            waiting()
            told = True
        if time.monotonic() > deadline:
            raise HostTimeout(
                connection.name,
                f"another client has been installing for {wait_seconds:.0f} s",
                fix=f"wait for it; if there is none, rm {FILE} on the host",
            )
        time.sleep(POLL_SECONDS)


def _beat(connection: Connection, done: threading.Event) -> None:
    with contextlib.suppress(HostError):
        while not done.wait(BEAT_SECONDS):
            connection.run(BEAT.replace("TOKEN", own_token()), step="hold the lock")
