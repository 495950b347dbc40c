"""Who may import whom: the rules of the architecture, read from the source of every module."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path.relative_to(ROOT).as_posix()
    for package in ("launcher", "nanochat")
    for path in (ROOT / package).rglob("*.py")
)

ONLY_IN = {  # imported package -> the folders that may
    "click": ["launcher/cli/"],
    "launcher": ["launcher/"],
    "paramiko": ["launcher/transport/"],
    "ray": ["launcher/raycluster/", "launcher/training/"],
    "rich": ["launcher/cli/"],
}


def imported(source: str) -> set[str]:
    """Top-level names of all packages that a module imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


def broken(module: str, source: str) -> list[str]:
    """The imports that a module may not have."""
    return sorted(
        name
        for name in imported(source)
        if name in ONLY_IN and not any(module.startswith(folder) for folder in ONLY_IN[name])
    )


@pytest.mark.parametrize("module", MODULES)
def test_imports(module: str) -> None:
    assert broken(module, (ROOT / module).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("nanochat/train.py", "import ray.train", ["ray"]),
        ("nanochat/train.py", "def f():\n    from launcher import errors", ["launcher"]),
        ("launcher/config/recipe.py", "import click, rich.table", ["click", "rich"]),
        ("launcher/hosts/facts.py", "from paramiko import SSHClient", ["paramiko"]),
        ("launcher/training/driver.py", "import ray\nimport launcher.errors", []),
        ("launcher/cli/size.py", "import click\nfrom rich import box", []),
    ],
)
def test_the_rules_can_be_broken(module: str, source: str, found: list[str]) -> None:
    assert broken(module, source) == found


def test_every_module_is_read() -> None:
    assert {"launcher/cli/main.py", "nanochat/sizes.py"} <= set(MODULES)
