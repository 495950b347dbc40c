"""YAML text to plain data that remembers where every key and value was written."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from launcher.config.paths import format_path
from launcher.errors import ConfigError, InputError

# ("nodes", 0, "host"): the way from the top to a key; () is the top
KeyPath = tuple[str | int, ...]
MAX_PROBLEMS = 10  # more would scroll the first, most useful one away

_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")  # the ones that YAML knows
_SCALARS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float")}
# YAML 1.1 reads 1e3 as text, for it wants 1.0e+3; YAML 1.2 and everybody else read a number.
_EXPONENT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
# YAML 1.1 reads 010 as 8 (octal) and 1:30 as 90 (base 60). Nobody means that.
_OCTAL_OR_BASE_60 = re.compile(r"[-+]?(0[0-9_]+|[0-9_]+(:[0-9_.]+)+)$")
_PLAIN_MESSAGES = {  # how PyYAML's messages begin -> ours
    "found character '\\t'": "a tab: indent with spaces",
    "expected <block end>": "the indentation does not fit the lines above",
    "could not find expected ':'": "no ':' after this",
    "but found another document": "a second document: keep one per file",
}


@dataclass(frozen=True)
class SourcePosition:
    """A stretch of one line. `line` and `column` count from 1, `width` is in characters."""

    label: str  # the file, or the option (--set)
    line: int
    column: int
    width: int
    text: str  # the whole line

    @property
    def is_option(self) -> bool:
        return self.label.startswith("--")

    @property
    def marked_text(self) -> str:
        """The characters that it covers."""
        start = self.column - 1
        return self.text[start : start + self.width]


@dataclass(frozen=True)
class Problem:
    position: SourcePosition
    message: str

    def __str__(self) -> str:
        """As compilers show it: position and message, the line, a caret."""
        position = self.position
        # A tab is one column to the caret; a control character would act on the terminal.
        line = "".join(letter if letter.isprintable() else " " for letter in position.text)
        caret = " " * (position.column - 1) + "^" * max(position.width, 1)
        where = f"{position.label}:{position.line}:{position.column}"
        return f"{where}: {self.message}\n  {line}\n  {caret}"


@dataclass
class YamlSource:
    """What a file and the options laid over it say, and where."""

    data: Any = None
    keys: dict[KeyPath, SourcePosition] = field(default_factory=dict)
    values: dict[KeyPath, SourcePosition] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    overridden: set[KeyPath] = field(default_factory=set)
    fix: str | None = None  # how to mend the file

    def error(self, *problems: Problem) -> ConfigError:
        """One error that shows the first problems."""
        shown = [str(problem) for problem in problems[:MAX_PROBLEMS]]
        if len(problems) > MAX_PROBLEMS:
            shown.append(f"and {len(problems) - MAX_PROBLEMS} more")
        return ConfigError(
            "\n".join(shown), fix=None if problems[0].position.is_option else self.fix
        )

    def error_at(self, key: str, message: str, *, fix: str | None = None) -> ConfigError:
        """For what turns out wrong later (a file is not there): points at the key."""
        error = self.error(Problem(self.position(key), f"{key}: {message}"))
        error.fix = fix or error.fix
        return error

    def set_default(self, key: str, value: Any) -> None:
        """A top-level key that is worked out where it is not written: problems point at the top."""
        if key not in self.data:
            self.data[key] = value
            self.keys[key,] = self.values[key,] = self.values[()]

    def override(self, option: str, key: str, text: str) -> None:
        """Lays over a dotted key what was given to its option: `--steps 1000`."""
        position = SourcePosition(option, 1, 1, len(text), text)
        self._set(_split_key(key), _Reader(self, option, text).read(_split_key(key)), position)

    def override_text(self, option: str, key: str, text: str) -> None:
        """The same for a value that is text and not YAML: `--data files:C:\\texts\\*.txt`."""
        position = SourcePosition(option, 1, 1, len(text), text)
        self.values[_split_key(key)] = position
        self._set(_split_key(key), text, position)

    def override_pair(self, option: str, argument: str) -> None:
        """The same for `--set key=value`."""
        key, equals, _ = argument.partition("=")
        path = _split_key(key.strip())
        if not equals or not all(path):
            position = SourcePosition(option, 1, 1, len(argument), argument)
            self.problems.append(Problem(position, "expected key=value, for example steps=1000"))
            return
        position = SourcePosition(
            option, 1, argument.index(key.strip()) + 1, len(key.strip()), argument
        )
        self._set(path, _Reader(self, option, argument, start=len(key) + 1).read(path), position)

    def remove(self, key: str) -> None:
        """Takes a top-level key out."""
        self.data.pop(key, None)

    def position(self, *keys: str) -> SourcePosition:
        """Where to point when these keys (data.source, nodes[0].host) do not go together.

        The first that an option set, else the first that is written, else the top.
        """
        written = [path for path in map(_parse_key, keys) if path in self.values]
        chosen = [path for path in written if path in self.overridden] or written or [()]
        return self.values[chosen[0]]

    def _set(self, path: KeyPath, value: Any, key_position: SourcePosition) -> None:
        """Puts a value into the data, over whatever is in its way."""
        parent = self.data
        for depth, name in enumerate(path[:-1], start=1):
            if not isinstance(parent.get(name), dict):
                parent[name] = {}
                self.keys[path[:depth]] = self.values[path[:depth]] = key_position
            parent = parent[name]
        parent[path[-1]] = value
        self.keys[path] = key_position
        self.overridden.add(path)


def read_yaml(path: Path, *, fix: str | None = None) -> YamlSource:
    """A YAML file whose top level is a mapping. Raises ConfigError with the position and `fix`."""
    label = format_path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {label}: {error.strerror}") from None
    return parse_yaml(content, label, fix=fix)


def parse_yaml(content: bytes, label: str, *, fix: str | None = None) -> YamlSource:
    """The bytes of such a file."""
    source = YamlSource(fix=fix)
    text = content.decode("utf-8-sig", errors="replace")  # -sig: Notepad writes a mark first
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = f"not UTF-8 (byte {content[error.start]:#04x}): save the file as UTF-8"
        before = content[: error.start].decode("utf-8-sig")
        raise source.error(Problem(_position_at(label, text, len(before)), bad)) from None
    source.data = _Reader(source, label, text).read(())
    if not isinstance(source.data, dict):
        empty = source.data is None
        message = "the file is empty" if empty else "expected keys and values, as in key: value"
        raise source.error(Problem(source.values[()], message))
    return source


class _NotSupported(yaml.MarkedYAMLError):
    """YAML that we refuse."""


class _Loader(yaml.SafeLoader):
    """SafeLoader without dates, aliases and tags: our files need none of them."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        refused = {
            "aliases (*name)": isinstance(event, yaml.AliasEvent),
            "tags (!name)": getattr(event, "tag", None) is not None,
        }
        for what, found in refused.items():
            if found:
                raise _NotSupported(None, None, f"{what} are not supported", event.start_mark)
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _SCALARS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


class _Reader:
    """One text: builds its data and notes in `source` where each part stands.

    `start`: characters at the front that are not YAML (the `key=` of a pair).
    """

    def __init__(self, source: YamlSource, label: str, text: str, *, start: int = 0) -> None:
        self.source, self.label, self.text = source, label, text
        self.lines = _LINE_BREAK.split(text)
        self.start = start
        self.scalars = yaml.constructor.SafeConstructor()

    def read(self, path: KeyPath) -> Any:
        """The data, to stand at `path`. Raises ConfigError for text that is not YAML."""
        try:
            node = yaml.compose(" " * self.start + self.text[self.start :], Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            raise self.source.error(self._malformed(error)) from None
        except yaml.reader.ReaderError as error:
            position = _position_at(self.label, self.text, error.position)
            message = f"control character {error.character:#04x}: remove it"
            raise self.source.error(Problem(position, message)) from None
        if node is None:
            self.source.values[path] = SourcePosition(
                self.label, 1, self.start + 1, 1, self.lines[0]
            )
            return None
        return self._value(node, path)

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        position = self.source.values[path] = self._position(node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]
        value = self.scalars.construct_object(node)
        if not isinstance(value, str) and _OCTAL_OR_BASE_60.match(node.value):
            message = f"YAML reads {node.value} as {value}: write {value}, or what you mean"
            self.source.problems.append(Problem(position, message))
        return value

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            position = self._position(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.source.problems.append(
                    Problem(position, "expected one word, as in key: value")
                )
                continue
            key = key_node.value  # as written: a key 'on' stays on
            if key in data:
                first = self.source.keys[*path, key].line
                message = f"key {key!r} is already in line {first}: keep one"
                self.source.problems.append(Problem(position, message))
                continue
            self.source.keys[*path, key] = position
            data[key] = self._value(value_node, (*path, key))
        return data

    def _position(self, node: yaml.Node) -> SourcePosition:
        start, end = node.start_mark, node.end_mark
        line = self.lines[start.line]
        stop = end.column if end.line == start.line else len(line.rstrip())
        return SourcePosition(
            self.label, start.line + 1, start.column + 1, stop - start.column, line
        )

    def _malformed(self, error: yaml.MarkedYAMLError) -> Problem:
        problem = error.problem or "malformed"
        mark = error.problem_mark
        if problem.startswith("could not find expected ':'"):
            mark = error.context_mark  # the key; the other mark is where the search ended
        assert mark is not None  # PyYAML's scanner, parser and composer give one each time
        ours = [message for start, message in _PLAIN_MESSAGES.items() if problem.startswith(start)]
        plain = isinstance(error, _NotSupported)
        message = ours[0] if ours else problem if plain else f"not YAML: {problem}"
        line = self.lines[mark.line]
        return Problem(SourcePosition(self.label, mark.line + 1, mark.column + 1, 1, line), message)


def _position_at(label: str, text: str, offset: int) -> SourcePosition:
    """The character at an offset."""
    before = _LINE_BREAK.split(text[:offset])
    line = _LINE_BREAK.split(text)[len(before) - 1]
    return SourcePosition(label, len(before), len(before[-1]) + 1, 1, line)


def format_key(path: KeyPath) -> str:
    """("nodes", 0, "host") -> nodes[0].host."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in path]
    return "".join(parts).removeprefix(".")


def _parse_key(key: str) -> KeyPath:
    """nodes[0].host -> ("nodes", 0, "host")."""
    parts = key.replace("[", ".").replace("]", "").split(".")
    return tuple(int(part) if part.isdigit() else part for part in parts)


def _split_key(key: str) -> KeyPath:
    """Of an option, which reaches no lists."""
    return tuple(key.split("."))
