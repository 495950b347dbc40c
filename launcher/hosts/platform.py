"""What wheels fit a host: its processor, and the C library that every host must have."""

from __future__ import annotations

from dataclasses import dataclass

# torch's own wheels ask for glibc 2.28 (Debian 10, Ubuntu 20.04, RHEL 8), so every host has it.
# Wheels are chosen for exactly that: one lock fits all hosts, whatever newer glibc they have, and
# a host that joins later changes nothing for the others.
GLIBC = (2, 28)
OLDEST_GLIBC = 5  # manylinux1
LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
ARCHITECTURES = ("x86_64", "aarch64")  # those that torch and ray have wheels for
# Python 3.11, ours, to 3.14, the newest that ray 2.60 has wheels for.
SUPPORTED_MINORS = range(11, 15)


@dataclass(frozen=True)
class Platform:
    """What an environment is made for. minor: of Python 3; accelerator: cpu, cuda or rocm; build:
    of torch (cu126), where the accelerator's usual one is not for this host."""

    architecture: str
    minor: int
    accelerator: str
    build: str = ""

    def __str__(self) -> str:
        name = f"{self.accelerator} ({self.build})" if self.build else self.accelerator
        return f"{name} on {self.architecture}, Python 3.{self.minor}"

    @property
    def platform_tags(self) -> tuple[str, ...]:
        """pip's --platform, best first."""
        tags: list[str] = []
        for minor in range(GLIBC[1], OLDEST_GLIBC - 1, -1):
            tags.append(f"manylinux_2_{minor}_{self.architecture}")
            if minor in LEGACY:
                tags.append(f"{LEGACY[minor]}_{self.architecture}")
        return (*tags, f"linux_{self.architecture}")  # wheels of one's own, from a find_links

    @property
    def pip_options(self) -> list[str]:
        """For pip's download and install --dry-run, which choose for this interpreter otherwise."""
        platforms = [word for tag in self.platform_tags for word in ("--platform", tag)]
        return [
            "--only-binary=:all:", *platforms,
            "--python-version", f"3.{self.minor}", "--implementation", "cp",
        ]  # fmt: skip

    @property
    def markers(self) -> dict[str, str]:
        """The environment in which requirements' markers are evaluated (PEP 508)."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"3.{self.minor}.0",
            "os_name": "posix",
            "platform_machine": self.architecture,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"3.{self.minor}.0",
            "python_version": f"3.{self.minor}",
            "sys_platform": "linux",
        }
