"""Who may import whom, read from the source of every module: imports inside functions and under
TYPE_CHECKING count too. Modules that hosts start by name (`python -m ...`) are no imports."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A room imports from rooms further down only.
ROOMS = (
    "cli", "operations", "training", "planner", "remote", "agent", "raycluster", "runs",
    "provision", "hosts", "ssh", "config", "formatting", "errors", "version",
)  # fmt: skip
ONLY_IN = {  # imported package -> the rooms of launcher that may
    "click": {"cli"},
    "rich": {"cli"},
    "paramiko": {"ssh"},
    "ray": {"raycluster", "agent", "training"},
}


def find_modules() -> dict[str, str]:
    """Dotted name -> source, of both packages."""
    modules = {}
    for package in ("launcher", "nanochat"):
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            modules[name] = path.read_text(encoding="utf-8")
    return modules


MODULES = find_modules()


def imports(source: str) -> Iterator[str]:
    """Dotted names of all that a module imports: of `from a.b import c` both a.b and a.b.c."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def import_graph(modules: Mapping[str, str]) -> dict[str, set[str]]:
    """Module -> the modules among these that it imports."""
    graph = {}
    for name, source in modules.items():
        found = {each for each in imports(source) if each in modules}
        packages = {each.rpartition(".")[0] for each in found}  # a.b of `from a.b import c`
        graph[name] = found - packages - {name}
    return graph


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that reach each other (strongly connected components, Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            place = stack.index(node)
            group = stack[place:]
            del stack[place:]
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def room_of(module: str) -> str:
    """`launcher.cli.main` -> cli; `nanochat.sizes` -> nanochat; `launcher` -> launcher."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] or package if package == "launcher" else package


def broken_rules(module: str, source: str) -> list[str]:
    """The imports that a module may not have."""
    room = room_of(module)
    broken = []
    for name in sorted(set(imports(source))):
        package = name.partition(".")[0]
        other = room_of(name)
        if package in ONLY_IN and room not in ONLY_IN[package]:
            broken.append(name)
        if package == "launcher" and room == "nanochat":
            broken.append(name)
        if room in ROOMS and other in ROOMS and ROOMS.index(other) < ROOMS.index(room):
            broken.append(name)
    return broken


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down(module: str) -> None:
    assert broken_rules(module, MODULES[module]) == []


def test_no_circle_of_modules() -> None:
    assert circles(import_graph(MODULES)) == []


def test_no_circle_of_rooms() -> None:
    rooms: defaultdict[str, set[str]] = defaultdict(set)
    for module, others in import_graph(MODULES).items():
        rooms[room_of(module)] |= {room_of(each) for each in others} - {room_of(module)}
    assert circles(rooms) == []


def test_every_room_is_ordered() -> None:
    assert {room_of(module) for module in MODULES} - {"nanochat", "launcher"} == set(ROOMS)


def test_no_name_of_two_meanings() -> None:
    """A public class or function has its name for itself, in both packages together."""
    places: defaultdict[str, list[str]] = defaultdict(list)
    for module, source in MODULES.items():
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                places[node.name].append(module)
    # `command` is what a module of `launcher.cli` is looked up by, `main` what `python -m` runs,
    # `claims` what each module of `published_guide` lists.
    several = {name: found for name, found in places.items() if len(found) > 1}
    assert several.keys() <= {"command", "main", "claims"}, several


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("nanochat.train", "import ray.train", ["ray.train"]),
        ("nanochat.train", "def f():\n    import launcher.errors", ["launcher.errors"]),
        ("launcher.config.recipe", "import click, rich.table", ["click", "rich.table"]),
        ("launcher.hosts.facts", "from paramiko import Agent", ["paramiko", "paramiko.Agent"]),
        ("launcher.ssh.target", "import launcher.hosts.facts", ["launcher.hosts.facts"]),
        ("launcher.runs.state", "def f():\n    import launcher.cli.main", ["launcher.cli.main"]),
        ("launcher.training.driver", "import ray\nimport launcher.errors", []),
        ("launcher.cli.size", "import click\nimport launcher.planner.size_table", []),
    ],
)
def test_the_rules_can_be_broken(module: str, source: str, found: list[str]) -> None:
    assert broken_rules(module, source) == found


def test_a_circle_is_found() -> None:
    sources = {
        "a.x": "import a.y",
        "a.y": "def f():\n    from a import z",
        "a.z": "if TYPE_CHECKING:\n    from a.x import X",
        "a": "",
        "b": "import a.x",
    }
    assert circles(import_graph(sources)) == [["a.x", "a.y", "a.z"]]


def test_every_module_is_read() -> None:
    assert {"launcher.cli.main", "nanochat.sizes", "launcher.ssh"} <= set(MODULES)
