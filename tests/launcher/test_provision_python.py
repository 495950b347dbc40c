"""One Python for the cluster, what else a host needs, and where packages come from."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from provisioning import facts, make_build

from launcher.errors import LaunchError
from launcher.hosts.platform import Platform
from launcher.provision.python import choose_pythons
from launcher.provision.python_builds import RELEASE, PythonBuild, find_python_build
from launcher.provision.requirements import host_requirements, index_options, pip_fingerprint

TARGET = Platform("x86_64", 12, "cpu")
BUILT = "cpython-3.12.13+20260718-x86_64-unknown-linux-gnu-install_only.tar.gz"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def built(wanted: str, architecture: str) -> PythonBuild:
    return PythonBuild(f"{wanted}.9", Path("/x.tar.gz"), "f" * 64)


def no_internet(wanted: str, architecture: str) -> PythonBuild:
    raise LaunchError(f"cannot download {wanted}", fix="set environment.python")


def chosen(wanted: str | None, hosts: dict[str, list[str]], find=built) -> list[str]:  # type: ignore[no-untyped-def]
    pythons = choose_pythons(
        wanted, {name: facts(*versions) for name, versions in hosts.items()}, find=find
    )
    return [python.build.version if python.build else python.path for python in pythons.values()]


@pytest.mark.parametrize(
    ("wanted", "one", "two", "found"),
    [
        (None, ["3.11.2"], ["3.11.2"], "/usr/bin/python3.11"),
        (None, ["3.13.1", "3.11.2"], ["3.12.4", "3.11.2"], "/usr/bin/python3.11"),
        (None, ["3.11.2", "3.12.4"], ["3.12.4", "3.11.2"], "/usr/bin/python3.12"),  # the newest
        (None, ["3.9.2", "3.11.2"], ["3.11.2", "3.9.2"], "/usr/bin/python3.11"),
        (None, ["3.15.0", "3.11.2"], ["3.11.2", "3.15.0"], "/usr/bin/python3.11"),  # no ray there
        (None, ["3.12.3", "3.14.0rc2"], ["3.14.0rc2", "3.12.3"], "/usr/bin/python3.12"),
        (None, ["3.14.0rc2"], ["3.14.0rc2"], "/usr/bin/python3.14"),
        (None, ["3.11.2"], ["3.11.7"], "3.11.9"),  # patches differ: sent
        (None, ["3.11.2"], ["3.13.1"], "3.12.9"),
        (None, ["3.11.2"], [], "3.12.9"),
        ("3.11", ["3.11.2"], ["3.11.2"], "/usr/bin/python3.11"),
        ("3.11.4", ["3.11.2"], ["3.11.2"], "3.11.4.9"),
        ("3.12", ["3.11.2"], ["3.11.2"], "3.12.9"),
    ],
)
def test_choice(wanted: str | None, one: list[str], two: list[str], found: str) -> None:
    assert chosen(wanted, {"one": one, "two": two}) == [found, found]


def test_equal_minors_do_where_nothing_can_be_sent() -> None:
    hosts = {"one": facts("3.11.2", "3.12.1"), "two": facts("3.12.4", "3.11.7")}
    pythons = choose_pythons(None, hosts, find=no_internet)
    assert [(p.minor, p.path) for p in pythons.values()] == [(12, "/usr/bin/python3.12")] * 2
    assert "one has 3.11.2, 3.12.1; two has 3.12.4, 3.11.7" in pythons["one"].reason
    assert "cannot download 3.12" in pythons["one"].reason

    def asked(wanted: str, architecture: str) -> PythonBuild:
        raise AssertionError("GitHub is asked once a day")

    again = choose_pythons(None, hosts, find=asked)
    assert again["two"].path == "/usr/bin/python3.12"


def test_no_python_fits_all() -> None:
    hosts = {"one": facts("3.11.2"), "two": facts("3.12.4"), "three": facts()}
    with pytest.raises(LaunchError) as caught:
        choose_pythons(None, hosts, find=no_internet)
    assert "one has 3.11.2; two has 3.12.4; three has none" in caught.value.message
    assert caught.value.fix == "set environment.python"


def test_what_is_wanted_is_never_replaced() -> None:
    with pytest.raises(LaunchError, match=r"cannot download 3\.13"):
        choose_pythons("3.13", {"one": facts("3.11.2")}, find=no_internet)


# --- builds


def test_an_archive_of_ones_own(tmp_path: Path) -> None:
    sha256 = make_build(tmp_path / "mine.tar.gz", minor=11)
    build = find_python_build(str(tmp_path / "mine.tar.gz"), "x86_64")
    assert build == PythonBuild("3.11", tmp_path / "mine.tar.gz", sha256)
    assert build.key == f"3.11-{sha256[:12]}" and build.minor == 11
    make_build(tmp_path / BUILT)
    assert find_python_build(str(tmp_path / BUILT), "x86_64").version == "3.12.13"
    with pytest.raises(LaunchError, match="does not run on aarch64"):
        find_python_build(str(tmp_path / BUILT), "aarch64")
    (tmp_path / "no.tar.gz").write_text("no")
    with pytest.raises(LaunchError, match="cannot be read"):
        find_python_build(str(tmp_path / "no.tar.gz"), "x86_64")
    with pytest.raises(LaunchError, match="no file"):
        find_python_build(str(tmp_path / "absent.tar.gz"), "x86_64")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[str]:
    """A server in GitHub's place, with one release."""
    folder = tmp_path / "served" / RELEASE
    names = [BUILT, BUILT.replace("x86_64", "aarch64"), BUILT.replace("3.12.13", "3.13.7")]
    sums = "".join(f"{make_build(folder / name)}  {name}\n" for name in names)
    names.append(BUILT.replace("3.12.13", "3.14.1"))
    make_build(folder / names[-1])
    (folder / "SHA256SUMS").write_text(f"{sums}{'0' * 64}  {names[-1]}\n")
    handler = functools.partial(Quiet, directory=str(folder.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_builds_of_a_release(releases: str, home: Path) -> None:
    for wanted, architecture, version in (
        ("3.12", "x86_64", "3.12.13"),
        ("3.12.13", "aarch64", "3.12.13"),
        ("3.13", "x86_64", "3.13.7"),
    ):
        build = find_python_build(wanted, architecture, releases=releases)
        assert build.version == version and architecture in build.archive.name
        assert build.archive.is_relative_to(home)
        assert (
            find_python_build(wanted, architecture, releases="http://127.0.0.1:9") == build
        )  # kept
    with pytest.raises(LaunchError, match=r"no Python 3\.13 for aarch64"):
        find_python_build("3.13", "aarch64", releases=releases)
    with pytest.raises(LaunchError, match="not what its SHA256SUMS says"):
        find_python_build("3.14", "x86_64", releases=releases)
    url = f"{releases}/{RELEASE}/{BUILT.replace('+', '%2B')}"
    assert find_python_build(url, "x86_64").version == "3.12.13"


def test_no_release_to_be_had() -> None:
    with pytest.raises(LaunchError, match=r"cannot download http://127\.0.*/SHA256SUMS") as e:
        find_python_build("3.12", "x86_64", releases="http://127.0.0.1:9")
    assert "environment.python" in (e.value.fix or "")


# --- platform, requirements, indexes


def test_tags_of_a_platform() -> None:
    tags = TARGET.platform_tags
    assert tags[0] == "manylinux_2_28_x86_64"
    assert tags[11:13] == ("manylinux_2_17_x86_64", "manylinux2014_x86_64")
    assert tags[-3:] == ("manylinux_2_5_x86_64", "manylinux1_x86_64", "linux_x86_64")


def test_requirements_of_a_host() -> None:
    lines = [
        "click>=8.1",
        'colorama; sys_platform == "win32"',
        'torch==2.13.0; extra == "train"',
        'pytest; extra == "test"',
        'tomli; python_version < "3.12"',
    ]
    assert host_requirements(TARGET, lines) == ["click>=8.1", "torch==2.13.0"]
    ours = host_requirements(TARGET)
    assert "torch==2.13.0" in ours and any(line.startswith("pip") for line in ours)
    assert not any(line.startswith("pytest") for line in ours)


def environment(**named: str) -> SimpleNamespace:
    return SimpleNamespace(
        **{"index_url": None, "extra_index_url": None, "find_links": None} | named
    )


@pytest.mark.parametrize(
    ("named", "pip_config", "accelerator", "options"),
    [
        ({}, "", "cpu", ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]),
        ({}, "", "cuda", ["--extra-index-url", "https://download.pytorch.org/whl/cu130"]),
        ({}, "", "rocm", ["--extra-index-url", "https://download.pytorch.org/whl/rocm7.2"]),
        ({}, "timeout = 9", "cpu", ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]),
        ({}, "find-links = /mine", "cpu", []),
        ({}, "index-url = https://mine", "cuda", []),
        ({"find_links": "/w"}, "", "cpu", ["--find-links", "/w"]),
        (
            {"index_url": "https://i"},
            "index-url = https://mine",
            "cpu",
            ["--index-url", "https://i"],
        ),
    ],
)
def test_indexes(
    named: dict[str, str],
    pip_config: str,
    accelerator: str,
    options: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    config = tmp_path / "pip.conf"
    config.write_text(f"[global]\n{pip_config}\n")
    # The machine's own files count too, so pip is shown this one as its only: /dev/null, if empty.
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config) if pip_config else os.devnull)
    target = Platform("x86_64", 11, accelerator)
    assert index_options(environment(**named), target) == options  # type: ignore[arg-type]


def test_a_new_pip_configuration_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    first = pip_fingerprint()
    assert pip_fingerprint() == first
    monkeypatch.setenv("PIP_INDEX_URL", "https://mine")
    second = pip_fingerprint()
    (tmp_path / ".pip").mkdir()
    (tmp_path / ".pip" / "pip.conf").write_text("[global]\nfind-links = /mine\n")
    assert len({first, second, pip_fingerprint()}) == 3
