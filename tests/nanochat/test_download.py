"""Files from servers that break off, lie, are slow or away: whole or absent, each byte once."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mirror import Mirror, serving

from nanochat.backoff import Backoff
from nanochat.dataset import download as downloading
from nanochat.dataset.climbmix import not_whole_parquet
from nanochat.dataset.download import DownloadWarnings, download
from nanochat.errors import DataError

CONTENT = b"PAR1" + bytes(range(256)) * 400 + b"PAR1"
NAME = "shard_00000.parquet"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "RETRY", Backoff(0.01, 30.0))
    monkeypatch.setattr(downloading, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(downloading, "CHUNK_BYTES", 4096)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / NAME).write_bytes(CONTENT)
    with serving(folder) as server:
        yield server


def fetch(mirror: Mirror, folder: Path, patience_seconds: float = 2.0) -> list[tuple[int, int]]:
    """What was reported: bytes that are here and bytes of the file."""
    reports: list[tuple[int, int]] = []
    download(
        f"{mirror.address}/{NAME}",
        folder / NAME,
        patience_seconds=patience_seconds,
        on_bytes=lambda done, total: reports.append((done, total or 0)),
        check=not_whole_parquet,
    )
    assert (folder / NAME).read_bytes() == CONTENT
    assert not list(folder.glob("*.partial*"))
    return reports


def test_a_file_comes_whole_and_once(mirror: Mirror, tmp_path: Path) -> None:
    reports = fetch(mirror, tmp_path)
    assert reports[-1] == (len(CONTENT), len(CONTENT))
    assert fetch(mirror, tmp_path) == []
    assert mirror.requests == [(NAME, "")]


def test_it_goes_on_where_the_connection_broke(mirror: Mirror, tmp_path: Path) -> None:
    mirror.breaks_after = 28_672
    reports = fetch(mirror, tmp_path)
    asked = [range_ for _, range_ in mirror.requests]
    assert asked == ["", "bytes=28672-", "bytes=57344-", "bytes=86016-"]
    assert [done for done, _ in reports] == sorted({done for done, _ in reports})


def begun(mirror: Mirror, folder: Path, size: int = 28_672) -> None:
    """A download that broke off after so many bytes, in an earlier process."""
    mirror.breaks_after = size
    with pytest.raises(DataError, match=f"{size:,} bytes are here, and it goes on from there"):
        fetch(mirror, folder, patience_seconds=0)
    mirror.breaks_after = None
    mirror.requests.clear()


@pytest.mark.parametrize("etag", [None, '"one"', 'W/"weak"'])
def test_a_later_call_goes_on_too(mirror: Mirror, tmp_path: Path, etag: str | None) -> None:
    mirror.etag = etag
    begun(mirror, tmp_path)
    fetch(mirror, tmp_path)
    assert mirror.requests == [(NAME, "bytes=28672-")]


def test_all_of_it_may_be_there_already(mirror: Mirror, tmp_path: Path) -> None:
    begun(mirror, tmp_path)
    (tmp_path / f"{NAME}.partial").write_bytes(CONTENT)
    fetch(mirror, tmp_path)
    assert mirror.requests == [(NAME, f"bytes={len(CONTENT)}-")]


@pytest.mark.parametrize("rest", [b"", b"of a longer file"])
def test_the_beginning_of_another_file_is_found_by_the_hash(
    mirror: Mirror, tmp_path: Path, rest: bytes
) -> None:
    begun(mirror, tmp_path)
    mirror.says_sha256 = ""
    (tmp_path / f"{NAME}.partial").write_bytes(bytes(len(CONTENT)) + rest)
    fetch(mirror, tmp_path)


def test_a_file_that_has_changed_meanwhile_is_not_mixed(mirror: Mirror, tmp_path: Path) -> None:
    mirror.etag = '"one"'
    mirror.sends_instead = b"PAR1" + bytes(len(CONTENT) - 8) + b"PAR1"
    begun(mirror, tmp_path)
    mirror.etag, mirror.sends_instead = '"two"', None
    fetch(mirror, tmp_path)
    assert mirror.requests == [(NAME, "bytes=28672-")]  # it was answered with all of it


def test_files_of_two_servers_are_not_mixed(mirror: Mirror, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / NAME).write_bytes(b"PAR1" + bytes(len(CONTENT) - 8) + b"PAR1")
    with serving(other) as second:
        begun(second, tmp_path)
    fetch(mirror, tmp_path)
    assert mirror.requests == [(NAME, "")]


def test_a_file_of_another_size_is_not_mixed(mirror: Mirror, tmp_path: Path) -> None:
    mirror.sends_instead = CONTENT + CONTENT
    begun(mirror, tmp_path)
    mirror.sends_instead = None
    fetch(mirror, tmp_path)


def test_a_server_without_ranges_sends_all_of_it_again(mirror: Mirror, tmp_path: Path) -> None:
    begun(mirror, tmp_path)
    mirror.knows_ranges = False
    fetch(mirror, tmp_path)


@pytest.mark.parametrize("address", ["http://a..b", "http://[bad", "http://", "gopher://x"])
def test_what_is_no_address_is_said_at_once(tmp_path: Path, address: str) -> None:
    with pytest.raises(DataError, match=r"data\.mirror"):
        download(f"{address}/x", tmp_path / "x", patience_seconds=3600)


def test_a_busy_server_is_asked_again(mirror: Mirror, tmp_path: Path) -> None:
    mirror.busy = 3
    fetch(mirror, tmp_path)
    assert len(mirror.requests) == 4


def test_a_slow_server_is_waited_for(mirror: Mirror, tmp_path: Path) -> None:
    mirror.pause_seconds = 0.1  # 2.6 s in all
    fetch(mirror, tmp_path, patience_seconds=1.0)
    assert len(mirror.requests) == 1


def test_a_server_that_never_gets_further_is_given_up(mirror: Mirror, tmp_path: Path) -> None:
    mirror.breaks_after, mirror.knows_ranges = 28_672, False
    with pytest.raises(DataError, match=r"no new byte for .*28,672 bytes are here") as caught:
        fetch(mirror, tmp_path, patience_seconds=0.5)
    assert "data.mirror" in str(caught.value.fix)
    assert (tmp_path / f"{NAME}.partial").read_bytes() == CONTENT[:28_672]


def test_nobody_there_is_said_with_the_reason(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(DataError, match=r"x: nothing came for .*Connection refused"):
        download("http://127.0.0.1:9/x", tmp_path / "x", patience_seconds=0.2, on_retry=said.append)
    assert len(said) > 1 and all("Connection refused" in reason for reason in said)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"says_bytes": 5}, r"it sent 102,408 bytes of a file of 5\n"),
        ({"says_sha256": "0" * 64}, r"it sent a file of SHA-256 [0-9a-f]{12}\.\.\., not 0{12}"),
        ({"sends_instead": CONTENT[:-9]}, "it sent no whole parquet file"),
        ({"sends_instead": b"<html>Log in to this Wi-Fi</html>"}, "no whole parquet file"),
        ({"sends_instead": b""}, "no whole parquet file"),
        ({"closed_names": {NAME}}, "the server says 404 Not Found"),
    ],
)
def test_a_server_that_lies_is_found_out(
    mirror: Mirror, tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    for name, value in changes.items():
        setattr(mirror, name, value)
    with pytest.raises(DataError, match=says) as caught:
        fetch(mirror, tmp_path)
    assert caught.value.message.startswith(f"{mirror.address}/{NAME}: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mirror", f"{NAME}.lock"]


def test_several_at_once_fetch_it_once(mirror: Mirror, tmp_path: Path) -> None:
    mirror.pause_seconds = 0.02
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: fetch(mirror, tmp_path), range(4)))
    assert mirror.requests == [(NAME, "")]


def test_a_full_disk_is_the_callers_to_tell(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path, __: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloading, "replace_durably", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(mirror, tmp_path)
    assert not (tmp_path / NAME).exists()


def test_a_warning_is_repeated_if_more_bytes_have_arrived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    warned: list[str] = []
    warnings = DownloadWarnings(warned.append)
    monkeypatch.setattr(downloading, "WARNING_SECONDS", 0.0)
    for size, reason in (
        (0, "503"), (0, "503"), (5, "broke off after 5"), (5, "timed out"),
        (9, "broke off after 9"), (3, "broke off after 3"), (9, "refused"),
    ):  # fmt: skip
        warnings.on_bytes(size)
        warnings.warn(reason)
    assert warned == ["503", "broke off after 5", "timed out", "broke off after 9", "refused"]
    monkeypatch.setattr(downloading, "WARNING_SECONDS", 1e9)  # have not passed
    warnings.on_bytes(99)
    warnings.warn("broke off after 99")
    assert len(warned) == 5
