"""climbmix as a hub has it, and a server of it that misbehaves as servers and networks do."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.dataset.climbmix import TRAINING_SHARDS, shard_name
from nanochat.dataset.stdlib_source import StdlibSource


def publish(folder: Path, shards: int, documents: int) -> None:
    """Write `shards` to train on and the last one, of so many pieces of Python's source each."""
    source = StdlibSource()
    texts = (document.text for document in source.documents())
    for number in (*range(shards), TRAINING_SHARDS):
        table = pa.table({"text": list(islice(texts, documents))})
        pq.write_table(table, folder / shard_name(number), row_group_size=64)


class Mirror(ThreadingHTTPServer):
    """`address`/NAME is a file of `folder`. The attributes say how it answers."""

    daemon_threads = True

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), _Handler)
        self.folder = folder
        self.address = f"http://{host}:{self.server_port}"
        self.requests: list[tuple[str, str]] = []  # name, range asked for
        self.breaks_after: int | None = None  # bytes of each answer
        self.knows_ranges = True
        self.busy = 0  # answers 503 so many times
        self.pause_seconds = 0.0  # between pieces of 4 KB
        self.says_bytes: int | None = None  # X-Linked-Size
        self.says_sha256: str | None = None  # X-Linked-Etag; "" for the right one
        self.etag: str | None = None
        self.sends_instead: bytes | None = None
        self.closed_names: set[str] = set()  # not found

    def names(self) -> list[str]:
        return [name for name, _ in self.requests]


class _Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def _answer(self, *, with_content: bool) -> None:
        mirror, name = self.server, self.path.rpartition("/")[2]
        asked = self.headers.get("Range", "")
        if with_content:
            mirror.requests.append((name, asked))
        path = mirror.folder / name
        if not path.exists() or name in mirror.closed_names:
            self.send_error(404)
            return
        if mirror.busy:
            mirror.busy -= 1
            self.send_error(503)
            return
        content = path.read_bytes() if mirror.sends_instead is None else mirror.sends_instead
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, stop = int(first or 0), int(last) + 1 if last else len(content)
        same = self.headers.get("If-Range") in (None, mirror.etag)
        if asked and mirror.knows_ranges and same:
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        else:
            start, stop = 0, len(content)
            self.send_response(200)
        self.send_header("Content-Length", str(stop - start))
        if mirror.etag is not None:
            self.send_header("ETag", mirror.etag)
        if mirror.says_bytes is not None:
            self.send_header("X-Linked-Size", str(mirror.says_bytes))
        if mirror.says_sha256 is not None:
            digest = mirror.says_sha256 or hashlib.sha256(path.read_bytes()).hexdigest()
            self.send_header("X-Linked-Etag", f'"{digest}"')
        self.end_headers()
        if with_content:
            self._send(content[start:stop][: mirror.breaks_after])

    def _send(self, content: bytes) -> None:
        for piece in re.findall(rb"(?s).{1,4096}", content):
            self.wfile.write(piece)
            self.wfile.flush()
            time.sleep(self.server.pause_seconds)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder: Path, host: str = "127.0.0.1") -> Iterator[Mirror]:
    mirror = Mirror(folder, host)
    Thread(target=mirror.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield mirror
    finally:
        mirror.shutdown()
        mirror.server_close()
