"""The exact wheels of an environment, resolved once on the client for the hosts' own platform."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from launcher.errors import LaunchError
from launcher.hosts.platform import Platform
from nanochat.file_hash import sha256_of

KEY_DIGITS = 16  # hexadecimal digits: 64 bits name a folder well enough
ROUNDS = 5  # of adding what another platform's markers left out; one is enough so far
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
# pip warns once for each of these before it says the misleading "no matching distribution".
UNREACHABLE = (
    "NewConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "NameResolutionError",
    "Failed to establish a new connection", "connection broken by", "SSLError",
)  # fmt: skip


@dataclass(frozen=True)
class Wheel:
    """One file of an index. url: http(s), or file where it comes from a folder of the client."""

    name: str
    version: str
    filename: str
    url: str
    sha256: str

    @property
    def local_path(self) -> Path | None:
        """Its path on the client that resolved it, None for one that is on the network."""
        parts = urlsplit(self.url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None


@dataclass(frozen=True)
class Lockfile:
    """The wheels of one environment, sorted by name. `request`: the key of what was asked for."""

    request: str
    target: Platform
    wheels: tuple[Wheel, ...]

    @property
    def key(self) -> str:
        """The same for the same files, wherever they came from."""
        return hash_key([self.target.architecture, *sorted(wheel.sha256 for wheel in self.wheels)])

    def wheel(self, name: str) -> Wheel:
        return next(wheel for wheel in self.wheels if wheel.name == name)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Lockfile:
        data = json.loads(text)
        wheels = tuple(Wheel(**wheel) for wheel in data["wheels"])
        return cls(data["request"], Platform(**data["target"]), wheels)


def hash_key(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:KEY_DIGITS]


def request_key(target: Platform, requirements: Sequence[str], indexes: Sequence[str]) -> str:
    """What is asked for, whoever asks: requirements and the cluster file's indexes."""
    return hash_key([str(target), *requirements, *indexes])


def resolve_wheels(
    target: Platform,
    requirements: Sequence[str],
    options: Sequence[str],
    *,
    request: str,
    hosts: Sequence[str],
    same_versions_as: Lockfile | None = None,
) -> Lockfile:
    """Ask pip which wheels fit; nothing is installed, and only what has no metadata is downloaded.

    pip evaluates markers for the interpreter that it runs in: what they wrongly leave out for the
    target (a Mac, another Python) is found by evaluating every package's requirements again, and
    asked for by name until nothing is missing; what they wrongly take in is left out of the lock.
    A package that only such a platform needs and that has no wheel for Linux still fails.
    agree_with: another accelerator's lock, whose versions to keep (torch's build may differ).
    `hosts` are for messages. Raises LaunchError.
    """
    asked = list(requirements)
    for _ in range(ROUNDS):
        report = _pip_report(target, asked, options, hosts, _constraints(same_versions_as))
        packages = {canonicalize_name(item["metadata"]["name"]): item for item in report}
        needed, missing = dependency_closure(packages, requirements, target)
        if not missing:
            wheels = sorted(
                (_wheel(item) for name, item in packages.items() if name in needed),
                key=lambda wheel: wheel.name,
            )
            return Lockfile(request, target, tuple(wheels))
        asked = [*requirements, *missing]
    raise LaunchError(
        f"{target}: requirements contradict each other: {', '.join(missing)}",
        fix="resolve on a Linux machine, with the Python of the hosts",
    )


def dependency_closure(
    packages: dict[Any, Any], requirements: Iterable[str], target: Platform
) -> tuple[set[str], list[str]]:
    """Walk all requirements with the target's markers: names reached, requirements not met."""
    needed: set[str] = set()
    missing: dict[str, None] = {}
    waiting = [Requirement(line) for line in requirements]
    seen: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        requirement.marker = None
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        name = canonicalize_name(requirement.name)
        metadata = packages[name]["metadata"] if name in packages else {"version": ""}
        if name not in packages or not requirement.specifier.contains(
            metadata["version"], prereleases=True
        ):
            missing[str(requirement)] = None
            continue
        needed.add(name)
        for line in metadata.get("requires_dist", []):
            child = Requirement(line)
            if child.marker is None or any(
                child.marker.evaluate({**target.markers, "extra": extra})
                for extra in {"", *requirement.extras}
            ):
                waiting.append(child)
    return needed, list(missing)


def _constraints(lock: Lockfile | None) -> list[str]:
    if lock is None:
        return []
    return [f"{wheel.name}=={wheel.version}" for wheel in lock.wheels if wheel.name != "torch"]


def _wheel(item: dict[str, Any]) -> Wheel:
    info = item["download_info"]
    url = info["url"]
    archive = info.get("archive_info", {})
    sha256 = archive.get("hashes", {}).get("sha256", "")
    if not sha256:  # a folder of wheels has none to tell, and some pip versions do not look
        path = Path(unquote(urlsplit(url).path))
        if urlsplit(url).scheme != "file":
            raise LaunchError(
                f"the index gives no SHA-256 for {url}", fix="use another index_url or find_links"
            )
        sha256 = sha256_of(path)
    metadata = item["metadata"]
    return Wheel(
        canonicalize_name(metadata["name"]),
        metadata["version"],
        unquote(urlsplit(url).path).rpartition("/")[2],
        url,
        sha256,
    )


def _pip_report(
    target: Platform,
    requirements: Sequence[str],
    options: Sequence[str],
    hosts: Sequence[str],
    constraints: Sequence[str],
) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="launch-resolve-") as folder:
        report = Path(folder, "report.json")
        constraint = Path(folder, "constraints.txt")
        constraint.write_text("\n".join(constraints))
        done = subprocess.run(
            [
                *PIP, "install", "--quiet", "--dry-run", "--ignore-installed",
                "--retries", "2", "--timeout", "15", "--report", str(report),
                "--target", folder, "--constraint", str(constraint),
                *target.pip_options, *options, *requirements,
            ],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise _pip_error(done.stderr, target, hosts)
        return list(json.loads(report.read_text())["install"])


def _pip_error(stderr: str, target: Platform, hosts: Sequence[str]) -> LaunchError:
    lines = [line for line in stderr.splitlines() if line.startswith("ERROR: ")]
    error = lines[-1].removeprefix("ERROR: ") if lines else stderr.strip()[-500:]
    who = f"{', '.join(hosts)} ({target})"
    if any(sign in stderr for sign in UNREACHABLE):
        return LaunchError(
            f"the package index cannot be reached from here, to resolve for {who}: {error}",
            fix="check this machine's network and `pip config list`, or set environment.index_url "
            "or environment.find_links in the cluster file",
        )
    return LaunchError(
        f"no wheels for {who}: {error}",
        fix="set environment.extra_index_url or environment.find_links in the cluster file to "
        "where such wheels are",
    )
