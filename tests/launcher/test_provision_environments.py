"""What every host needs: the lock it gets, and whether it is sent its wheels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from provisioning import facts

from launcher.config.cluster import Environment
from launcher.errors import LaunchError
from launcher.hosts.platform import Platform
from launcher.provision.code import CodeArchive
from launcher.provision.environments import (
    choose_push,
    find_lockfile,
    index_servers,
    require_accelerator,
)
from launcher.provision.host_plan import HostEnvironment
from launcher.provision.lockfile import Lockfile, Wheel, request_key
from launcher.provision.python import ChosenPython
from launcher.provision.requirements import host_requirements
from launcher.ssh.fake import FakeConnection

TARGET = Platform("x86_64", 11, "cpu")
PIP = Wheel("pip", "26.3", "pip.whl", "https://files.example.org/pip.whl", "a" * 64)
TORCH = Wheel("torch", "2.13.0+cpu", "torch.whl", "http://10.0.0.1:81/torch.whl", "b" * 64)
LOCAL = dataclasses.replace(TORCH, url="file:///opt/torch.whl")
ENVIRONMENT = Environment()
PYTHON = ChosenPython(11, "", path="/usr/bin/python3.11")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path))


def lock_of(*wheels: Wheel, target: Platform = TARGET, request: str = "r") -> Lockfile:
    return Lockfile(request, target, wheels)


def test_a_lock_is_taken_from_hosts_that_have_it_and_then_kept() -> None:
    lock = lock_of(PIP, TORCH, request=request_key(TARGET, host_requirements(TARGET), []))
    others = lock_of(PIP, request="another")
    files = {".launch/env/aa/lock.json": others, ".launch/env/bb/lock.json": lock}
    one = FakeConnection("one", files={path: x.to_json().encode() for path, x in files.items()})
    ready = {"env/aa": "1", "env/bb": "2", "code/x": "x"}
    hosts = {"one": facts("3.11.2", ready=ready), "two": facts("3.11.2", ready=ready)}
    connections = {"one": one, "two": FakeConnection("two")}
    names = list(hosts)
    said: list[str] = []
    for _ in range(2):
        found = find_lockfile(TARGET, ENVIRONMENT, names, hosts, connections, None, said.append)
        assert found == lock
        one.files.clear()  # the second time it is under LAUNCH_HOME
    assert said == []


@pytest.mark.parametrize(
    ("version", "target", "fits"),
    [
        ("2.13.0+cpu", TARGET, True),
        ("2.13.0", TARGET, True),  # CUDA's runs without a GPU
        ("2.13.0", Platform("x86_64", 11, "cuda"), True),
        ("2.13.0+cu130", Platform("x86_64", 11, "cuda"), True),
        ("2.13.0+cu130", Platform("x86_64", 11, "cuda", "cu126"), False),
        ("2.13.0", Platform("x86_64", 11, "cuda", "cu126"), False),
        ("2.13.0+cu126", Platform("x86_64", 11, "cuda", "cu126"), True),
        ("2.13.0+cpu", Platform("x86_64", 11, "cuda"), False),
        ("2.13.0", Platform("aarch64", 11, "cuda"), False),
        ("2.13.0", Platform("x86_64", 11, "rocm"), False),
        ("2.13.0+rocm7.2", Platform("x86_64", 11, "rocm"), True),
    ],
)
def test_torch_is_built_for_the_accelerator(version: str, target: Platform, fits: bool) -> None:
    lock = lock_of(dataclasses.replace(TORCH, version=version), target=target)
    if fits:
        require_accelerator(lock, ["one"])
        return
    wanted = "CUDA 12.6 is what" if target.build else f"accelerator is {target.accelerator}"
    with pytest.raises(LaunchError, match=f"one: {wanted}") as caught:
        require_accelerator(lock, ["one"])
    assert "environment.extra_index_url" in (caught.value.fix or "")


def test_where_wheels_come_from() -> None:
    assert index_servers(lock_of(PIP, TORCH)) == ["10.0.0.1:81", "files.example.org:443"]
    assert index_servers(lock_of(LOCAL)) == []


@pytest.mark.parametrize(
    ("push", "answer", "wheels", "pushed"),
    [
        ("always", None, (PIP, TORCH), ["pip", "torch"]),
        ("auto", "", (PIP, TORCH), ["pip", "torch"]),
        ("auto", "reached\n", (PIP, TORCH), ["pip"]),
        ("auto", "reached\n", (PIP, LOCAL), ["pip", "torch"]),
        ("never", None, (PIP, TORCH), ["pip"]),
    ],
)
def test_push(push: str, answer: str | None, wheels: tuple[Wheel, ...], pushed: list[str]) -> None:
    """Hosts are asked where it depends on them, and only those that lack their environment."""
    need = HostEnvironment(PYTHON, lock_of(*wheels), CodeArchive("c", Path("c"), "c"))
    ready = {f"env/{need.key}": need.lockfile.key}
    hosts = {"one": facts("3.11.2"), "two": facts("3.11.2", ready=ready)}
    one = FakeConnection("one", {} if answer is None else {"python3.11": answer})
    connections = {"one": one, "two": FakeConnection("two")}
    found = choose_push(push, {"one": need, "two": need}, hosts, connections)
    assert [wheel.name for wheel in found["one"].pushed_wheels] == pushed
    assert found["two"].key == found["one"].key == need.key


def test_a_folder_of_this_machine_cannot_be_downloaded_from() -> None:
    need = HostEnvironment(PYTHON, lock_of(PIP, LOCAL), CodeArchive("c", Path("c"), "c"))
    with pytest.raises(LaunchError, match=r"one cannot download torch\.whl"):
        choose_push("never", {"one": need}, {"one": facts("3.11.2")}, {})
