"""Reading pieces of files over SFTP: no process is started on the host, as a command would."""

from __future__ import annotations

import threading

import paramiko

from launcher.ssh.process import close_session, open_session, send_channel_request

READ_SECONDS = 30.0

# SSH_FXP_INIT and what comes behind the length in SSH_FXP_VERSION (draft-ietf-secsh-filexfer-02).
SFTP_VERSION = b"\0\0\0\3"
SFTP_INIT, SFTP_VERSION_REPLY = b"\0\0\0\5\1" + SFTP_VERSION, b"\2" + SFTP_VERSION


class _Client(paramiko.SFTPClient):
    """Passes over what a login shell prints before its sftp-server begins."""

    def _send_version(self) -> int:
        """Called by its constructor, in place of paramiko's own."""
        self._write_all(SFTP_INIT)
        seen = b""
        while not (len(seen) == 9 and seen[:2] == b"\0\0" and seen.endswith(SFTP_VERSION_REPLY)):
            seen = seen[-8:] + self._read_all(1)
        self._read_all(int.from_bytes(seen[:4]) - len(SFTP_VERSION_REPLY))  # its extensions
        return SFTP_VERSION[-1]


class FileReader:
    """One SFTP session, opened when it is first needed; one reader at a time."""

    def __init__(self, transport: paramiko.Transport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._client: paramiko.SFTPClient | None = None

    def read(self, path: str, offset: int) -> bytes:
        """Up to the end. Raises what paramiko does; TimeoutError after READ_SECONDS of silence."""
        with self._lock:
            client = self._client or self._open()
            try:
                file = client.open(path, "rb")
                file.seek(offset)
                data: bytes = file.read()
                file.close()
                return data
            except (TimeoutError, EOFError, paramiko.SSHException):
                self._client = None
                # An answer that comes late would be taken for the next one's.
                close_session(client.get_channel())
                raise

    def _open(self) -> paramiko.SFTPClient:
        channel = open_session(self._transport, READ_SECONDS)
        channel.settimeout(READ_SECONDS)
        send_channel_request(channel, "subsystem", "sftp")
        self._client = _Client(channel)
        return self._client
