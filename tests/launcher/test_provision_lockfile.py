"""Wheels for a host that is not this machine: chosen by pip, offline, from a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from provisioning import make_wheel

from launcher.errors import LaunchError
from launcher.hosts.platform import Platform
from launcher.provision.lockfile import Lockfile, dependency_closure, request_key, resolve_wheels
from launcher.provision.wheels import fetch_wheels, unpacked_bytes, wheel_path

TARGET = Platform("x86_64", 13, "cpu")  # pip runs in another Python than 3.13 here


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the index nor the pip configuration of this machine."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path / "home"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    make_wheel(
        folder, "app", "1.0",
        requires=(
            "fast>=2",
            'new; python_version >= "3.12"',
            'old; python_version < "3.12"',
            'mac; sys_platform == "darwin"',
            'gpu; platform_system == "Linux" and extra == "cuda"',
        ),
    )  # fmt: skip
    for version in ("1.0", "2.0", "2.1"):
        for tag in ("cp313-cp313-manylinux_2_28_x86_64", "cp313-cp313-manylinux_2_17_aarch64"):
            make_wheel(folder, "fast", version, tag=tag)
    make_wheel(folder, "fast", "3.0", tag="cp313-cp313-manylinux_2_34_x86_64")
    make_wheel(folder, "fast", "4.0", tag="cp311-cp311-manylinux_2_17_x86_64")
    for name in ("new", "old", "gpu"):
        make_wheel(folder, name, "1.0")
    return folder


def lock_of(folder: Path, *requirements: str, **options: object) -> Lockfile:
    target = options.pop("target", TARGET)
    assert isinstance(target, Platform)
    return resolve_wheels(
        target, requirements, ["--no-index", "--find-links", str(folder)],
        request="r", hosts=["one", "two"], **options,  # type: ignore[arg-type]
    )  # fmt: skip


def files(lock: Lockfile) -> list[str]:
    return [wheel.filename for wheel in lock.wheels]


def test_for_the_hosts_platform_and_python(folder: Path) -> None:
    lock = lock_of(folder, "app")
    assert files(lock) == [
        "app-1.0-py3-none-any.whl",
        "fast-2.1-cp313-cp313-manylinux_2_28_x86_64.whl",  # 3.0 asks for a newer glibc
        "new-1.0-py3-none-any.whl",  # pip here left it out; and took in `old`
    ]
    assert lock.wheels[1].sha256 in lock.to_json()
    arm = lock_of(folder, "app[cuda]", target=Platform("aarch64", 13, "cuda"))
    assert "fast-2.1-cp313-cp313-manylinux_2_17_aarch64.whl" in files(arm)
    assert [wheel.name for wheel in arm.wheels] == ["app", "fast", "gpu", "new"]


def test_another_accelerator_keeps_the_versions(folder: Path) -> None:
    first = lock_of(folder, "fast==2.0")
    second = lock_of(folder, "app", same_versions_as=first)
    assert [wheel.version for wheel in second.wheels if wheel.name == "fast"] == ["2.0"]


def test_to_json_and_back(folder: Path) -> None:
    lock = lock_of(folder, "new")
    assert Lockfile.from_json(lock.to_json()) == lock
    elsewhere = lock.to_json().replace("file://", "https://index")
    assert Lockfile.from_json(elsewhere).key == lock.key  # the same files
    assert lock_of(folder, "old").key != lock.key


@pytest.mark.parametrize(
    ("requirement", "said"),
    [
        ("fast==9", ["no wheels for one, two (cpu on x86_64, Python 3.13)", "fast==9"]),
        ("nosuch", ["no wheels for one, two", "nosuch"]),
    ],
)
def test_no_wheel(folder: Path, requirement: str, said: list[str]) -> None:
    with pytest.raises(LaunchError) as caught:
        lock_of(folder, requirement)
    assert all(words in caught.value.message for words in said)
    assert "find_links" in (caught.value.fix or "")


def test_no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(LaunchError, match="index cannot be reached") as caught:
        resolve_wheels(
            TARGET, ["fast"], ["--index-url", "http://127.0.0.1:9/simple"],
            request="r", hosts=["one"],
        )  # fmt: skip
    assert "environment.index_url" in (caught.value.fix or "")


def package(version: str, *requires: str) -> dict[str, dict[str, object]]:
    return {"metadata": {"version": version, "requires_dist": list(requires)}}


@pytest.mark.parametrize(
    ("packages", "needed", "missing"),
    [
        ({"a": package("1", "b")}, {"a"}, ["b"]),
        ({"a": package("1", "b>=2"), "b": package("1")}, {"a"}, ["b>=2"]),
        ({"a": package("1", "B_c==2"), "b-c": package("2+cpu")}, {"a", "b-c"}, []),
        ({"a": package("1", "a[x]", 'b; extra == "x"'), "b": package("1")}, {"a", "b"}, []),
        ({"a": package("1", 'b; sys_platform == "win32"'), "b": package("1")}, {"a"}, []),
    ],
)
def test_closure(packages: dict[str, object], needed: set[str], missing: list[str]) -> None:
    assert dependency_closure(packages, ["a"], TARGET) == (needed, missing)


def test_a_request_is_what_is_asked_for() -> None:
    asked = request_key(TARGET, ["a"], [])
    assert asked == request_key(TARGET, ["a"], [])
    others = [
        request_key(TARGET, ["a>1"], []),
        request_key(TARGET, ["a"], ["--index-url", "x"]),
        request_key(Platform("x86_64", 12, "cpu"), ["a"], []),
        request_key(Platform("x86_64", 13, "cuda"), ["a"], []),
    ]
    assert len({asked, *others}) == 5


def test_wheels_are_gathered_once(folder: Path) -> None:
    lock = lock_of(folder, "app")
    seen: list[tuple[int, int]] = []
    size = fetch_wheels(
        lock.wheels, TARGET, progress=lambda name, done, of: seen.append((done, of))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert size == sum(wheel_path(wheel).stat().st_size for wheel in lock.wheels)
    assert unpacked_bytes(wheel_path(lock.wheels[0])) > 0
    assert fetch_wheels(lock.wheels, TARGET) == 0


def test_a_wheel_that_changed_is_refused(folder: Path) -> None:
    lock = lock_of(folder, "new")
    make_wheel(folder, "new", "1.0", requires=("else",))
    with pytest.raises(LaunchError, match="not the file that was chosen"):
        fetch_wheels(lock.wheels, TARGET)
    (folder / "new-1.0-py3-none-any.whl").unlink()
    with pytest.raises(LaunchError, match="not there any more"):
        fetch_wheels(lock.wheels, TARGET)
    assert not list(wheel_path(lock.wheels[0]).parent.glob("*"))
