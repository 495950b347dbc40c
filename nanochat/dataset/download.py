"""A file from an HTTP address: it goes on where it broke off, and is whole or absent."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

import requests

from nanochat.atomic_write import replace_durably, write_atomically
from nanochat.backoff import Backoff
from nanochat.errors import DataError, root_cause
from nanochat.file_hash import sha256_of
from nanochat.lock import hold_lock

CONNECT_SECONDS, SILENCE_SECONDS = 10.0, 30.0
RETRY = Backoff(first_seconds=0.5, max_seconds=30.0)
CHUNK_BYTES = 1 << 14  # an unfinished one is lost where a connection breaks
PASSING = {408, 425, 429}  # and all that are the server's fault
FINAL = (
    ValueError,  # several kinds of bad addresses, urllib3's among them
    requests.exceptions.TooManyRedirects,
    requests.exceptions.SSLError,
)
OTHER_MIRROR = "try again later, or take it from elsewhere: --set data.mirror=ADDRESS, or a folder"
SHA256 = re.compile(r'"?([0-9a-f]{64})"?')
NUMBER = re.compile(r"0x[0-9a-f]+|\d[\d,]*")
WARNING_SECONDS = 60.0  # between two equal warnings: some servers break off every second

OnBytes = Callable[[int, int | None], None]  # bytes received, bytes of the file


class _Description(NamedTuple):
    """What a server says of a file: its size, and its hash where the server is a hub."""

    bytes: int | None
    sha256: str | None


class _Version(NamedTuple):
    """Which file the bytes in a partial one are of: kept beside it."""

    url: str
    etag: str
    bytes: int | None

    @classmethod
    def of(cls, partial: Path) -> _Version | None:
        try:
            return cls(**json.loads(_version_file(partial).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, partial: Path) -> None:
        write_atomically(_version_file(partial), json.dumps(self._asdict()).encode())


class DownloadWarnings:
    """Passes the warnings about one file on, without repetitions.

    Warnings that differ in their figures only are equal. An equal one is passed on again only if
    more bytes have arrived since and WARNING_SECONDS have passed.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._bytes = 0
        self._warned: dict[str, tuple[int, float]] = {}  # kind -> bytes at that time, time

    def on_bytes(self, size: int) -> None:
        """`size` bytes of the file have arrived."""
        self._bytes = max(self._bytes, size)

    def warn(self, reason: str) -> None:
        kind, now = NUMBER.sub("", reason), time.monotonic()
        size, warned_at = self._warned.get(kind, (-1, -WARNING_SECONDS))
        if self._bytes > size and now - warned_at >= WARNING_SECONDS:
            self._warned[kind] = self._bytes, now
            self._warn(reason)


class _BrokeOff(Exception):
    """Worth another attempt."""


def download(
    url: str,
    path: Path,
    *,
    patience_seconds: float,
    on_bytes: OnBytes = lambda done, total: None,
    on_retry: Callable[[str], None] = lambda reason: None,
    check: Callable[[Path], str | None] = lambda path: None,
) -> None:
    """Bring `url` to `path`, unless it is there. Several processes may ask at once.

    A broken connection is taken up again, also by a later call. Sizes are compared with what the
    server says, and the SHA-256 where it names it, as the Hugging Face hub does (X-Linked-Etag);
    `check` says what else is wrong with the content, or None. `on_retry` gets the reason why an
    attempt failed that is followed by another one. Raises DataError if the content is wrong twice,
    the server refuses, or no new byte came for `patience_seconds`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with hold_lock(path.with_name(f"{path.name}.lock"), seconds=math.inf):
        for last in (False, True):
            if path.exists():
                return
            description = _receive(url, partial, patience_seconds, on_bytes, on_retry)
            wrong = _what_is_wrong(partial, description) or check(partial)
            if wrong is None:
                replace_durably(partial, path)
                _version_file(partial).unlink(missing_ok=True)
                return
            partial.unlink()
            _version_file(partial).unlink(missing_ok=True)
            if last:
                raise DataError(f"{url}: {wrong}", fix=OTHER_MIRROR)


def _receive(
    url: str,
    partial: Path,
    patience_seconds: float,
    on_bytes: OnBytes,
    on_retry: Callable[[str], None],
) -> _Description:
    """All that is missing at the end of `partial`, in as many attempts as it takes."""
    failures, last_byte_at = 0, time.monotonic()
    while True:
        before = _size(partial)
        try:
            return _receive_some(url, partial, before, on_bytes)
        except FINAL as error:
            raise DataError(f"{url}: {root_cause(error)}", fix=OTHER_MIRROR) from error
        except (requests.RequestException, _BrokeOff) as error:
            received, now = _size(partial), time.monotonic()
            if received > before:
                failures, last_byte_at = 0, now
            failures += 1
            pause = RETRY.seconds(failures)
            if now - last_byte_at + pause > patience_seconds:
                silent = f"{now - last_byte_at:.0f} s: {root_cause(error)}"
                kept = f"; {received:,} bytes are here, and it goes on from there"
                raise DataError(
                    f"{url}: no new byte for {silent}{kept}"
                    if received
                    else f"{url}: nothing came for {silent}",
                    fix=OTHER_MIRROR,
                ) from error
            on_retry(root_cause(error))
        time.sleep(pause)


def _receive_some(url: str, partial: Path, have: int, on_bytes: OnBytes) -> _Description:
    """One attempt. Raises RequestException or _BrokeOff where another one may get further."""
    known = _Version.of(partial)
    if have and (known is None or known.url != url):
        have = 0  # of who knows which file
    headers = {"Accept-Encoding": "identity"}
    if have and known is not None:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": known.etag} if known.etag else {})
    timeout = (CONNECT_SECONDS, SILENCE_SECONDS)
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        status = response.status_code
        start, total = _range(response)
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and total == have:
            return _describe(response, total)
        if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            if status in PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise _BrokeOff(f"{status} {response.reason}")
            if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                partial.unlink()  # longer than the file: another one's beginning
                raise _BrokeOff("the file has become shorter")
            raise DataError(f"{url}: the server says {status} {response.reason}", fix=OTHER_MIRROR)
        if status == HTTPStatus.PARTIAL_CONTENT and start != have:
            raise _BrokeOff(f"the server sends from byte {start} in place of {have}")
        if status == HTTPStatus.OK:
            have = 0  # a server that knows no ranges, or has another file by now
            partial.unlink(missing_ok=True)  # before it is recorded as this one's
            _Version(url, _strong_etag(response), total).write(partial)
        elif known is not None and total != known.bytes:
            partial.unlink()
            raise _BrokeOff("the file has changed meanwhile")
        with partial.open("ab" if have else "wb") as file:
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                have += len(chunk)
                on_bytes(have, total)
        if total is not None and have < total:
            raise _BrokeOff(f"the connection closed after {have:,} of {total:,} bytes")
        return _describe(response, total)


def _range(response: requests.Response) -> tuple[int, int | None]:
    """The first byte of what follows, and the bytes of the whole file if the server names them."""
    header = response.headers.get("Content-Range", "")
    if match := re.match(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", header):
        return int(match[1] or 0), None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _describe(response: requests.Response, total: int | None) -> _Description:
    """A hub says size and hash where it redirects to the place that has the content."""
    digest = None
    for answer in (*response.history, response):
        if match := SHA256.fullmatch(answer.headers.get("X-Linked-Etag", "")):
            digest = match[1]
        if (linked := answer.headers.get("X-Linked-Size", "")).isdecimal():
            total = int(linked)
    return _Description(total, digest)


def _what_is_wrong(path: Path, description: _Description) -> str | None:
    size = _size(path)
    if description.bytes is not None and size != description.bytes:
        return f"it sent {size:,} bytes of a file of {description.bytes:,}"
    if description.sha256 is not None and (digest := sha256_of(path)) != description.sha256:
        return f"it sent a file of SHA-256 {digest[:12]}..., not {description.sha256[:12]}..."
    return None


def _strong_etag(response: requests.Response) -> str:
    """Empty where the server has none that stands for the bytes."""
    etag = response.headers.get("ETag", "")
    return "" if etag.startswith("W/") else etag


def _version_file(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
