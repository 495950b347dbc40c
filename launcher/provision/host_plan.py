"""Facts in, operations out: what has to be done on a host so that it has what it needs.

Nothing here connects to anything. `up --dry-run` prints these operations, `apply_plans` runs them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from launcher.provision.code import CodeArchive
from launcher.provision.lockfile import Lockfile, Wheel, hash_key
from launcher.provision.python import ChosenPython
from launcher.provision.wheels import wheel_path

if TYPE_CHECKING:
    from launcher.hosts.facts import HostFacts

ROOT = ".launch"  # under the login's home folder
QUICK_SECONDS = 60.0
PYTHON_UNPACK_SECONDS = 300.0
INSTALL_SECONDS = 3600.0  # CUDA's wheels are 3 GB, and a disk may be a slow one
PIP_INSTALL = (
    "install --quiet --no-input --no-index --no-deps --no-compile --no-cache-dir"
    " --require-hashes --disable-pip-version-check --no-warn-script-location --progress-bar off"
)
Stage = Literal["python", "push", "install", "code"]


@dataclass(frozen=True)
class SendFile:
    """Send a file of the client."""

    stage: Stage
    target: str
    """The folder under ~/.launch that it is for, which gets a file `ready`."""
    description: str
    local_path: Path
    path: str
    sha256: str

    def __str__(self) -> str:
        return f"send {self.local_path} to ~/{self.path}"


@dataclass(frozen=True)
class WriteFile:
    """Write a small file."""

    stage: Stage
    target: str
    description: str
    path: str
    text: str

    def __str__(self) -> str:
        return f"write ~/{self.path} ({len(self.text)} characters)"


@dataclass(frozen=True)
class RunCommand:
    """A POSIX sh script, run in the home folder."""

    stage: Stage
    target: str
    description: str
    command: str
    seconds: float = QUICK_SECONDS

    def __str__(self) -> str:
        return self.command


Operation = SendFile | WriteFile | RunCommand


@dataclass(frozen=True)
class HostEnvironment:
    """What a host has to have."""

    python: ChosenPython
    lockfile: Lockfile
    code: CodeArchive
    push: bool = True
    """Whether its wheels are sent to it, even those that it could download."""

    @property
    def key(self) -> str:
        """The environment's key: its folder is ~/.launch/env/KEY."""
        return hash_key([self.lockfile.key, self.python.key])

    @property
    def pushed_wheels(self) -> list[Wheel]:
        """Wheels to send; pip itself always: the host's own may be missing, or too old."""
        return [w for w in self.lockfile.wheels if self.push or w.local_path or w.name == "pip"]


@dataclass(frozen=True)
class HostPlan:
    """The operations that one host lacks, in order; none where it is ready."""

    host: str
    environment: HostEnvironment
    operations: tuple[Operation, ...]
    free_bytes: int


def has_environment(facts: HostFacts, environment: HostEnvironment) -> bool:
    return facts.ready.get(f"env/{environment.key}") == environment.lockfile.key


def plan_host(host: str, facts: HostFacts, environment: HostEnvironment) -> HostPlan:
    operations: list[Operation] = []
    if not has_environment(facts, environment):
        if environment.python.build and f"python/{environment.python.key}" not in facts.ready:
            operations += _python(environment.python)
        operations += _environment(facts.home, environment)
    if f"code/{environment.code.key}" not in facts.ready:
        operations += _code(environment.code)
    return HostPlan(host, environment, tuple(operations), facts.disk_free_bytes)


def _python(python: ChosenPython) -> Iterator[Operation]:
    """The builds can be moved: their paths are found from the executable's own."""
    assert python.build
    key = python.build.key
    folder = f"{ROOT}/python/{key}"
    yield SendFile(
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
        PYTHON_UNPACK_SECONDS,
    )


def _environment(home: str, environment: HostEnvironment) -> Iterator[Operation]:
    target, folder = f"env/{environment.key}", f"{ROOT}/env/{environment.key}"
    for wheel in environment.pushed_wheels:
        yield SendFile(
            "push", target, f"{wheel.name} {wheel.version}",
            wheel_path(wheel), f"{_wheels(environment)}/{wheel.filename}", wheel.sha256,
        )  # fmt: skip
    lines = [_requirement(wheel, home, environment) for wheel in environment.lockfile.wheels]
    yield WriteFile("install", target, "requirements", f"{folder}.txt", "\n".join(lines) + "\n")
    yield WriteFile("install", target, "lock", f"{folder}.json", environment.lockfile.to_json())
    yield RunCommand(
        "install",
        target,
        f"install {len(environment.lockfile.wheels)} packages",
        _install(home, environment, folder),
        INSTALL_SECONDS,
    )


def _install(home: str, environment: HostEnvironment, folder: str) -> str:
    """A venv cannot be moved, so it is made in place; `ready` comes last.

    flock: where a client was cut off, its install may still run; the next waits for it and then
    finds it done. Not compiled: that takes tens of seconds for torch and Ray on one core, and
    Python compiles what it imports when it first does. Nothing is left outside ~/.launch: no
    cache, and what pip downloads is unpacked inside, not in a /tmp that may be small.
    """
    python = shlex.quote(environment.python.executable(home))
    pip = shlex.quote(f"{_wheels(environment)}/{environment.lockfile.wheel('pip').filename}/pip")
    # Pushed, the host's own pip configuration has no part in it; else it may hold the proxy.
    alone = "PIP_CONFIG_FILE=/dev/null " if environment.push else ""
    flags = " --isolated" if environment.push else ""
    return (
        f"set -e; exec 9>{folder}.flock; flock 9\n"
        f"[ ! -e {folder}/ready ] || exit 0\n"
        f"rm -rf {folder}; {python} -m venv --without-pip {folder}; mkdir {folder}/tmp\n"
        f"TMPDIR=~/{folder}/tmp {alone}{folder}/bin/python -I {pip}"
        f" {PIP_INSTALL}{flags} -r {folder}.txt > {folder}.log 2>&1 ||"
        f" {{ tail -n 5 {folder}.log >&2; rm -rf {folder}; exit 1; }}\n"
        f"mv {folder}.json {folder}/lock.json; rm -r {folder}/tmp {folder}.txt {folder}.log\n"
        f"echo {environment.lockfile.key} > {folder}/ready;"
        f" rm -rf {folder}.flock {_wheels(environment)}\n"
        f"rmdir {ROOT}/wheels 2>/dev/null || true"
    )


def _requirement(wheel: Wheel, home: str, environment: HostEnvironment) -> str:
    """By its own address, so no index has a say. A pushed one's is on the host."""
    url = wheel.url
    if wheel in environment.pushed_wheels:
        url = "file://" + quote(f"{home}/{_wheels(environment)}/{wheel.filename}")
    return f"{wheel.name} @ {url} --hash=sha256:{wheel.sha256}"


def _wheels(environment: HostEnvironment) -> str:
    return f"{ROOT}/wheels/{environment.key}"


def _code(code: CodeArchive) -> Iterator[Operation]:
    target, folder = f"code/{code.key}", f"{ROOT}/code/{code.key}"
    yield SendFile("code", target, "code", code.archive, f"{folder}.tar.gz", code.sha256)
    yield RunCommand(
        "code",
        target,
        "unpack code",
        f"set -e; rm -rf {folder}; mkdir {folder}\n"
        f"tar -xzf {folder}.tar.gz -C {folder}\n"
        f"rm {folder}.tar.gz; echo {code.key} > {folder}/ready",
    )
