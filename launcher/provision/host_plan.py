"""Facts in, operations out: what has to be done on a host so that it has what it needs.

Nothing here connects to anything. `up --dry-run` prints these operations, `apply` runs them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from launcher.provision.code import Code
from launcher.provision.lock import Lock, Wheel, key_of
from launcher.provision.python import ChosenPython
from launcher.provision.wheels import wheel_path

if TYPE_CHECKING:
    from launcher.hosts.facts import HostFacts

ROOT = ".launch"  # under the login's home folder
QUICK_SECONDS = 60.0
UNPACK_SECONDS = 300.0
INSTALL_SECONDS = 3600.0  # CUDA's wheels are 3 GB, and a disk may be a slow one
PIP_INSTALL = (
    "install --quiet --no-input --no-index --no-deps --no-compile --no-cache-dir"
    " --require-hashes --disable-pip-version-check --no-warn-script-location --progress-bar off"
)
Stage = Literal["python", "push", "install", "code"]


@dataclass(frozen=True)
class Send:
    """A file of the client. target: the folder under ~/.launch that it is for, with a `ready`."""

    stage: Stage
    target: str
    what: str
    local: Path
    path: str
    sha256: str

    def __str__(self) -> str:
        return f"send {self.local} to ~/{self.path}"


@dataclass(frozen=True)
class Write:
    """A small file."""

    stage: Stage
    target: str
    what: str
    path: str
    text: str

    def __str__(self) -> str:
        return f"write ~/{self.path} ({len(self.text)} characters)"


@dataclass(frozen=True)
class RunCommand:
    """A POSIX sh script, run in the home folder."""

    stage: Stage
    target: str
    what: str
    command: str
    seconds: float = QUICK_SECONDS

    def __str__(self) -> str:
        return self.command


Operation = Send | Write | RunCommand


@dataclass(frozen=True)
class HostEnvironment:
    """What a host has to have. push: its wheels are sent to it, even those it could download."""

    python: ChosenPython
    lock: Lock
    code: Code
    push: bool = True

    @property
    def env(self) -> str:
        """The environment's key: its folder is ~/.launch/env/KEY."""
        return key_of([self.lock.key, self.python.key])

    @property
    def pushed(self) -> list[Wheel]:
        """pip itself always: the host's own may be missing, or too old."""
        return [w for w in self.lock.wheels if self.push or w.local_path or w.name == "pip"]


@dataclass(frozen=True)
class HostPlan:
    """The operations that one host lacks, in order; none where it is ready."""

    host: str
    need: HostEnvironment
    operations: tuple[Operation, ...]
    free_bytes: int


def has_environment(facts: HostFacts, need: HostEnvironment) -> bool:
    return facts.ready.get(f"env/{need.env}") == need.lock.key


def plan_host(host: str, facts: HostFacts, need: HostEnvironment) -> HostPlan:
    operations: list[Operation] = []
    if not has_environment(facts, need):
        if need.python.build and f"python/{need.python.key}" not in facts.ready:
            operations += _python(need.python)
        operations += _environment(facts.home, need)
    if f"code/{need.code.key}" not in facts.ready:
        operations += _code(need.code)
    return HostPlan(host, need, tuple(operations), facts.disk_free_bytes)


def _python(python: ChosenPython) -> Iterator[Operation]:
    """The builds can be moved: their paths are found from the executable's own."""
    assert python.build
    key = python.build.key
    folder = f"{ROOT}/python/{key}"
    yield Send(
        "python", f"python/{key}", f"Python {python.build.version}",
        python.build.archive, f"{folder}.tar.gz", python.build.sha256,
    )  # fmt: skip
    yield RunCommand(
        "python",
        f"python/{key}",
        f"unpack Python {python.build.version}",
        f"set -e; rm -rf {folder}; mkdir {folder}\n"
        f"tar -xzf {folder}.tar.gz -C {folder} --strip-components=1\n"
        f"{folder}/bin/python3 -c 'import venv'\n"
        f"rm {folder}.tar.gz; echo {key} > {folder}/ready",
        UNPACK_SECONDS,
    )


def _environment(home: str, need: HostEnvironment) -> Iterator[Operation]:
    target, folder = f"env/{need.env}", f"{ROOT}/env/{need.env}"
    for wheel in need.pushed:
        yield Send(
            "push", target, f"{wheel.name} {wheel.version}",
            wheel_path(wheel), f"{_wheels(need)}/{wheel.filename}", wheel.sha256,
        )  # fmt: skip
    lines = [_requirement(wheel, home, need) for wheel in need.lock.wheels]
    yield Write("install", target, "requirements", f"{folder}.txt", "\n".join(lines) + "\n")
    yield Write("install", target, "lock", f"{folder}.json", need.lock.to_json())
    yield RunCommand(
        "install",
        target,
        f"install {len(need.lock.wheels)} packages",
        _install(home, need, folder),
        INSTALL_SECONDS,
    )


def _install(home: str, need: HostEnvironment, folder: str) -> str:
    """A venv cannot be moved, so it is made in place; `ready` comes last.

    flock: where a client was cut off, its install may still run; the next waits for it and then
    finds it done. Not compiled: that takes tens of seconds for torch and Ray on one core, and
    Python compiles what it imports when it first does. Nothing is left outside ~/.launch: no
    cache, and what pip downloads is unpacked inside, not in a /tmp that may be small.
    """
    python = shlex.quote(need.python.executable(home))
    pip = shlex.quote(f"{_wheels(need)}/{need.lock.wheel('pip').filename}/pip")
    # Pushed, the host's own pip configuration has no part in it; else it may hold the proxy.
    alone = "PIP_CONFIG_FILE=/dev/null " if need.push else ""
    flags = " --isolated" if need.push else ""
    return (
        f"set -e; exec 9>{folder}.flock; flock 9\n"
        f"[ ! -e {folder}/ready ] || exit 0\n"
        f"rm -rf {folder}; {python} -m venv --without-pip {folder}; mkdir {folder}/tmp\n"
        f"TMPDIR=~/{folder}/tmp {alone}{folder}/bin/python -I {pip}"
        f" {PIP_INSTALL}{flags} -r {folder}.txt > {folder}.log 2>&1 ||"
        f" {{ tail -n 5 {folder}.log >&2; rm -rf {folder}; exit 1; }}\n"
        f"mv {folder}.json {folder}/lock.json; rm -r {folder}/tmp {folder}.txt {folder}.log\n"
        f"echo {need.lock.key} > {folder}/ready; rm -rf {folder}.flock {_wheels(need)}\n"
        f"rmdir {ROOT}/wheels 2>/dev/null || true"
    )


def _requirement(wheel: Wheel, home: str, need: HostEnvironment) -> str:
    """By its own address, so no index has a say. A pushed one's is on the host."""
    url = wheel.url
    if wheel in need.pushed:
        url = "file://" + quote(f"{home}/{_wheels(need)}/{wheel.filename}")
    return f"{wheel.name} @ {url} --hash=sha256:{wheel.sha256}"


def _wheels(need: HostEnvironment) -> str:
    return f"{ROOT}/wheels/{need.env}"


def _code(code: Code) -> Iterator[Operation]:
    target, folder = f"code/{code.key}", f"{ROOT}/code/{code.key}"
    yield Send("code", target, "code", code.archive, f"{folder}.tar.gz", code.sha256)
    yield RunCommand(
        "code",
        target,
        "unpack code",
        f"set -e; rm -rf {folder}; mkdir {folder}\n"
        f"tar -xzf {folder}.tar.gz -C {folder}\n"
        f"rm {folder}.tar.gz; echo {code.key} > {folder}/ready",
    )
