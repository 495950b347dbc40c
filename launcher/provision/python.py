"""One Python for the cluster: the hosts' own where they are equal, else one that is sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.version import Version

from launcher.config.paths import launch_home
from launcher.errors import LaunchError
from launcher.hosts.platform import SUPPORTED_MINORS
from launcher.provision.python_builds import PYTHON_VERSION, RELEASE, PythonBuild, find_python_build

if TYPE_CHECKING:
    from launcher.hosts.facts import HostFacts

DEFAULT_MINOR = 12  # where hosts share none
BUILD_RETRY_SECONDS = 86_400.0  # an `up` without internet must not wait for GitHub every time
FindBuild = Callable[[str, str], PythonBuild]  # version, path or URL; architecture


@dataclass(frozen=True)
class ChosenPython:
    """What a host's environment is made with: a Python of its own (path), or a build to send."""

    minor: int
    reason: str
    path: str = ""
    build: PythonBuild | None = None

    @property
    def key(self) -> str:
        """Part of the environment's. A host's own may get new patch versions: its venv follows."""
        return self.build.key if self.build else f"host-3.{self.minor}"

    def executable(self, home: str) -> str:
        return f"{home}/.launch/python/{self.build.key}/bin/python3" if self.build else self.path


def choose_pythons(
    wanted: str | None, facts: Mapping[str, HostFacts], *, find: FindBuild = find_python_build
) -> dict[str, ChosenPython]:
    """Host -> Python, equal on all; `wanted` is the cluster file's environment.python.

    Ray joins hosts of one patch version, and of one minor where it is told to (see raycluster).
    Raises LaunchError with every host's versions where none fits all.
    """
    if wanted is None or PYTHON_VERSION.match(wanted):
        version = _newest([_versions(host) for host in facts.values()], wanted)
        if version:
            reason = f"Python {version} is on {_count_hosts(facts)}"
            return {name: _host_python(host, version, reason) for name, host in facts.items()}
    if wanted is not None:
        return _choose_builds(wanted, f"environment.python is {wanted}", facts, find)
    has = "; ".join(f"{name} has {_format_versions(host)}" for name, host in facts.items())
    minor = _newest([{v.rpartition(".")[0] for v in _versions(host)} for host in facts.values()])
    try:
        return _choose_builds_once_a_day(
            minor or f"3.{DEFAULT_MINOR}", f"sent by us: {has}", facts, find
        )
    except LaunchError as error:
        if minor is None:
            oldest = f"3.{SUPPORTED_MINORS[0]}"
            raise LaunchError(
                f"no Python {oldest} or newer fits all hosts: {has}; {error.message}",
                fix=error.fix,
            ) from None
        reason = f"equal in {minor}, which is enough for Ray: {has}; none sent: {error.message}"
        return {name: _host_python(host, minor, reason) for name, host in facts.items()}


def _choose_builds(
    wanted: str, reason: str, facts: Mapping[str, HostFacts], find: FindBuild
) -> dict[str, ChosenPython]:
    builds = {arch: find(wanted, arch) for arch in {host.architecture for host in facts.values()}}
    minors = {build.minor for build in builds.values()}
    if not minors <= set(SUPPORTED_MINORS):
        newest = f"3.{SUPPORTED_MINORS[0]} to 3.{SUPPORTED_MINORS[-1]}"
        raise LaunchError(
            f"environment.python: {wanted} is none that torch and Ray have wheels for",
            fix=f"choose one of {newest}",
        )
    return {
        name: ChosenPython(builds[host.architecture].minor, reason, build=builds[host.architecture])
        for name, host in facts.items()
    }


def _choose_builds_once_a_day(
    wanted: str, reason: str, facts: Mapping[str, HostFacts], find: FindBuild
) -> dict[str, ChosenPython]:
    """The same, unless it failed less than a day ago."""
    failed = launch_home() / "python" / f"{RELEASE}-{wanted}.failed"
    if failed.exists() and time.time() - failed.stat().st_mtime < BUILD_RETRY_SECONDS:
        raise LaunchError(failed.read_text(), fix="set environment.python to try at once")
    try:
        found = _choose_builds(wanted, reason, facts, find)
    except LaunchError as error:
        failed.parent.mkdir(parents=True, exist_ok=True)
        failed.write_text(error.message)
        raise
    failed.unlink(missing_ok=True)
    return found


def _host_python(host: HostFacts, version: str, reason: str) -> ChosenPython:
    """The best of that version: the first, since facts have the best first."""
    path = next(p.path for p in host.pythons if _matches(p.version, version))
    return ChosenPython(int(version.split(".")[1]), reason, path=path)


def _versions(host: HostFacts) -> set[str]:
    return {p.version for p in host.pythons if int(p.version.split(".")[1]) in SUPPORTED_MINORS}


def _newest(versions: list[set[str]], wanted: str | None = None) -> str | None:
    """The newest version that all have; a pre-release only if there is no other."""
    shared = set.intersection(*versions)
    fitting = [version for version in shared if wanted is None or _matches(version, wanted)]
    return max(fitting, key=lambda v: (not Version(v).is_prerelease, Version(v)), default=None)


def _matches(version: str, wanted: str) -> bool:
    return version == wanted or version.startswith(f"{wanted}.")


def _format_versions(host: HostFacts) -> str:
    return ", ".join(p.version for p in host.pythons) or "none"


def _count_hosts(facts: Mapping[str, HostFacts]) -> str:
    return "the host" if len(facts) == 1 else f"all {len(facts)} hosts"
