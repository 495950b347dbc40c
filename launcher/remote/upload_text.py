"""The text of a run on a cluster: what the head cannot reach is sent, each content once; what hosts
have themselves is compared."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from launcher.agent.text_store import BLOBS, TEXT
from launcher.config.paths import launch_home
from launcher.config.recipe import DataSettings
from launcher.errors import LaunchError
from launcher.provision.client_lock import client_lock, named
from launcher.raycluster.control import ask_host
from launcher.raycluster.observer import Notify
from launcher.raycluster.spec import ClusterSpec
from launcher.remote.upload_shards import upload_shards
from launcher.ssh.parallel import call_on_all
from launcher.ssh.protocol import Connection, file_progress
from nanochat.dataset.climbmix import CLIMBMIX
from nanochat.dataset.sources import parse_source
from nanochat.errors import DataError
from nanochat.file_hash import FileHashes, sha256_of
from nanochat.progress import Progress

LIST_FILES_MODULE, TEXT_STORE_MODULE = "launcher.agent.list_files", "launcher.agent.text_store"
HASH_SECONDS = 3600.0  # of gigabytes, the first time
REMOTE_TEXT, REMOTE_BLOBS = f".launch/{TEXT}", f".launch/{BLOBS}"
KEY_LENGTH = 16
# A file takes a session and several round trips; smaller ones than this travel together.
SMALL_BYTES = 1 << 20
BATCH_BYTES = 64 << 20
UNPACK_SECONDS = 600.0


def upload_text(
    connections: Mapping[str, Connection],
    spec: ClusterSpec,
    data: DataSettings,
    base: Path,
    progress: Progress,
    notify: Notify,
) -> dict[str, str]:
    """Bring the text to the head. Return what it finds each text by, under its key of DataSettings.

    `base`: where relative patterns begin. `notify` is called if another client is sending.
    A file that was cut off goes on. Raises HostError; DataError where a file cannot be read, or is
    not the same on all hosts; LaunchError where one changes meanwhile.
    """
    head = connections[spec.head.name]
    sent = {}
    for key, text in (("source", data.source), ("validation", data.validation)):
        kind = (text or "").partition(":")[0]
        if text is not None and kind == "files":
            sent[key] = _send_files(head, spec, text, base, progress, notify)
        elif text is not None and kind == "host":
            progress("comparing text", 0, 1, host=head.name)
            require_same_text(connections, spec, text)
            progress("comparing text", 1, 1, host=head.name)
        elif kind == CLIMBMIX and upload_shards(head, spec, data, base, progress, notify):
            sent[key] = CLIMBMIX
    return sent


def require_same_text(connections: Mapping[str, Connection], spec: ClusterSpec, text: str) -> None:
    """Raises DataError where the head has no such files, or another host has others by that name.

    Hosts without any get their rows from the head, as with all text.
    """

    def list_on_host(host: Connection) -> Any:
        return ask_host(host, spec, LIST_FILES_MODULE, text, seconds=HASH_SECONDS)

    listings = call_on_all(connections, list_on_host)
    head_files = listings.pop(spec.head.name)
    if isinstance(head_files, dict):
        raise DataError(f"{spec.head.name}: {head_files['message']}", fix=head_files["fix"])
    for name, host_files in listings.items():
        if isinstance(host_files, dict):
            continue
        different = sorted(dict(set(map(tuple, head_files)) ^ set(map(tuple, host_files))))
        if different:
            raise DataError(
                f"{text}: {different[0]} on {name} is not what {spec.head.name} has"
                + (f", nor are {len(different) - 1} more" if len(different) > 1 else ""),
                fix="copy the same files to all hosts, or to the head alone",
            )


def _send_files(
    head: Connection,
    spec: ClusterSpec,
    files: str,
    base: Path,
    progress: Progress,
    notify: Notify,
) -> str:
    source = parse_source(files, base)
    paths = {file.name: file.path for file in source.files}
    hashes = _hash_files(paths, progress)
    listing = json.dumps([[digest, name] for name, digest in hashes.items()]).encode()
    key = hashlib.sha256(listing).hexdigest()[:KEY_LENGTH]
    if head.run(f"[ -e {REMOTE_TEXT}/{key} ]", step="is the text there").status == 0:
        return key
    head.write(f"{REMOTE_TEXT}/{key}.json", listing)
    contents = {digest: paths[name] for name, digest in hashes.items()}
    with client_lock(head, notify=named(head, notify)):  # two clients would append to one file
        missing: list[str] = ask_host(head, spec, TEXT_STORE_MODULE, key)
        _send_blobs(head, {digest: contents[digest] for digest in missing}, progress)
        if missing:
            missing = ask_host(head, spec, TEXT_STORE_MODULE, key, seconds=UNPACK_SECONDS)
    if missing:
        raise LaunchError(f"{contents[missing[0]]} changed while it was sent", fix="try again")
    return key


def _hash_files(paths: Mapping[str, Path], progress: Progress) -> dict[str, str]:
    """Name -> SHA-256. Files of the same size and time as last time are not read again."""
    file_hashes = FileHashes(launch_home() / "data" / "file-hashes.json")
    total = sum(path.stat().st_size for path in paths.values())
    hashes, done = {}, 0
    for name, path in paths.items():
        hashes[name] = file_hashes.sha256(path)
        done += path.stat().st_size
        progress("hashing text", done, total)
    file_hashes.save()
    return hashes


def _send_blobs(head: Connection, files: Mapping[str, Path], progress: Progress) -> None:
    sizes = {digest: path.stat().st_size for digest, path in files.items()}
    total, done = sum(sizes.values()), 0
    for digest, size in sizes.items():
        if size > SMALL_BYTES:
            report = file_progress(progress, head.name, "text", done, total)
            head.send(files[digest], f"{REMOTE_BLOBS}/{digest}", sha256=digest, on_bytes=report)
            done += size
    for batch in _batches(sizes):
        with tempfile.TemporaryDirectory(prefix="launch-text-") as folder:
            tar = Path(folder, "batch.tar")
            _pack({digest: files[digest] for digest in batch}, tar)
            digest = sha256_of(tar)
            head.send(tar, f"{REMOTE_BLOBS}/{digest}.tar", sha256=digest)
        done += sum(sizes[digest] for digest in batch)
        progress("text", done, total, host=head.name)


def _batches(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Of small files; in a fixed order, so that a batch that was cut off goes on."""
    batch: list[str] = []
    room_bytes = BATCH_BYTES
    for digest in sorted(sizes):
        if sizes[digest] > SMALL_BYTES:
            continue
        if sizes[digest] > room_bytes:
            yield batch
            batch, room_bytes = [], BATCH_BYTES
        batch.append(digest)
        room_bytes -= sizes[digest]
    if batch:
        yield batch


def _pack(files: Mapping[str, Path], tar: Path) -> None:
    with tarfile.open(tar, "w") as archive:
        for digest, path in files.items():
            content = path.read_bytes()
            member = tarfile.TarInfo(digest)  # no time, no owner: the same bytes again
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
