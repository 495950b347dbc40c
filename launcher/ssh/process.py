"""One command on a host: its three pipes and its end."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from typing import Any

import paramiko
from paramiko.common import cMSG_CHANNEL_REQUEST

from launcher.formatting import format_duration

READ_BYTES = 1 << 18
# What a connection that has ended raises.
CONNECTION_ERRORS = (OSError, EOFError, paramiko.SSHException)
START_LINE = b"--launch--\n"


def wrap_for_any_shell(script: str) -> str:
    """A command line that runs a POSIX script whatever the login shell is.

    sshd hands it to that shell. In single quotes only ! \\ ' and line ends mean something to one of
    sh, csh and fish, so these travel as printf's octal numbers. The line that is printed first
    tells the script's output from what a .bashrc prints.
    """
    coded = re.sub(r"[\x00-\x1f\\'!\x7f]", lambda found: f"\\0{ord(found[0]):03o}", script)
    begin = START_LINE.decode().strip()
    return f"""sh -c 'echo {begin}; exec sh -c "$(printf %b "$1")" sh' sh '{coded}'"""


def send_channel_request(channel: paramiko.Channel, kind: str, argument: str) -> None:
    """Ask something of a channel without asking for a reply.

    That saves a round trip, and paramiko's own exec_command waits for the reply without a limit.
    """
    message = paramiko.Message()
    message.add_byte(cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string(kind)
    message.add_boolean(False)
    message.add_string(argument)
    channel.transport._send_user_message(message)


def open_session(transport: paramiko.Transport, seconds: float) -> paramiko.Channel:
    """A channel for a command or for SFTP, within this time.

    sshd refuses more than MaxSessions (10), and counts one for a moment after its end.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return transport.open_session(timeout=seconds)
        except paramiko.ChannelException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def close_session(channel: paramiko.Channel) -> None:
    with contextlib.suppress(*CONNECTION_ERRORS):
        channel.close()


class Process:
    """A script at work. Reading and feeding raise TimeoutError once nothing has moved for
    `seconds`, or past the time set by `set_deadline`."""

    def __init__(self, channel: paramiko.Channel, script: str, seconds: float) -> None:
        self._channel = channel
        self._deadline: float | None = None
        self._seconds = seconds
        self._unread = b""
        self._stderr = bytearray()
        send_channel_request(channel, "exec", wrap_for_any_shell(script))
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def set_deadline(self, seconds: float) -> None:
        """All that follows has to be over within this time."""
        self._deadline = time.monotonic() + seconds
        self._seconds = seconds

    @property
    def timeout_message(self) -> str:
        """What a TimeoutError means."""
        if self._deadline is not None:
            return f"took longer than {format_duration(self._seconds)}"
        return f"stood still for {format_duration(self._seconds)}"

    def set_stall_timeout(self, seconds: float) -> None:
        """From now on, nothing may stand still for longer than this."""
        self._seconds = seconds

    def skip_login_output(self) -> bool:
        """Read up to where the script's own output begins. False: it never does, and what was
        printed instead is read next."""
        skipped = b""
        while line := self.read_line():
            skipped += line
            if line.endswith(START_LINE):
                return True
        self._unread = skipped
        return False

    def read_line(self) -> bytes:
        """The next line of standard output with its end; less at the end of the output."""
        while b"\n" not in self._unread:
            if not (data := self._receive()):
                break
            self._unread += data
        line, newline, self._unread = self._unread.partition(b"\n")
        return line + newline

    def read(self) -> bytes:
        """Some of the standard output; b"" at its end."""
        data, self._unread = self._unread, b""
        return data or self._receive()

    def read_all(self) -> bytes:
        parts = []
        while data := self.read():
            parts.append(data)
        return b"".join(parts)

    def write_stdin(self, data: bytes) -> bool:
        """Write to its standard input. False once nobody reads it any more."""
        view = memoryview(data)
        while view:
            self._limit()
            try:
                sent = self._channel.send(view)
            except TimeoutError:
                raise
            except OSError:  # paramiko's "Socket is closed"
                return False
            if sent == 0:
                return False
            view = view[sent:]
        return True

    def write_stdin_and_close(self, data: bytes) -> None:
        """Write all of its standard input while its output is being read."""

        def write() -> None:
            with contextlib.suppress(*CONNECTION_ERRORS):
                self.write_stdin(data)  # whoever reads the output meets the same end
                self.close_stdin()

        if data:
            threading.Thread(target=write, daemon=True).start()
        else:
            self.close_stdin()

    def close_stdin(self) -> None:
        self._channel.shutdown_write()

    def wait(self) -> int:
        """Its exit status; -1 where there is none: it was killed or the connection is gone."""
        if not self._channel.status_event.wait(self._limit()):
            raise TimeoutError
        self._listener.join(self._limit())
        return int(self._channel.recv_exit_status())

    def stderr(self) -> str:
        return self._stderr.decode("utf-8", "replace")

    def kill(self) -> None:
        """It and its children; sshd does that for us since OpenSSH 7.9."""
        with contextlib.suppress(*CONNECTION_ERRORS):
            send_channel_request(self._channel, "signal", "KILL")

    def _limit(self) -> float:
        """Seconds that the next read or write may take, set on the channel as well."""
        seconds = self._seconds
        if self._deadline is not None:
            seconds = max(0.001, self._deadline - time.monotonic())
        self._channel.settimeout(seconds)
        return seconds

    def _receive(self) -> bytes:
        self._limit()
        data: bytes = self._channel.recv(READ_BYTES)
        return data

    def _listen(self) -> None:
        """Standard error, all the time: an unread one would stop the command."""
        while True:
            try:
                data: Any = self._channel.recv_stderr(READ_BYTES)
            except TimeoutError:
                continue
            except CONNECTION_ERRORS:
                return
            if not data:
                return
            self._stderr += data
