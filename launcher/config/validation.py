"""Plain data against a pydantic model, with each failure in our words and at its position."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from launcher.config.yaml_source import KeyPath, Problem, SourcePosition, YamlSource, format_key

Model = TypeVar("Model", bound=BaseModel)
BrokenRule = tuple[str, tuple[str, ...]]  # message; the keys that do not go together

_EXPECTED = {
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "model_type": "keys and values",
    "string_type": "text",
    "tuple_type": "a list",
}
_LIMITS = {
    "greater_than": ("gt", "must be more than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than_equal": ("le", "must be at most"),
    "multiple_of": ("multiple_of", "must be a multiple of"),
}


def validate(model: type[Model], source: YamlSource) -> Model:
    """The model's instance. Raises ConfigError with all problems, in the file's order."""
    problems = list(source.problems)
    try:
        instance = model.model_validate(source.data)
    except ValidationError as error:
        for details in error.errors():
            problems += _problems(model, source, details)
    if not problems:
        return instance
    raise source.error(*sorted(problems, key=_sort_key))


def raise_broken_rules(rules: list[BrokenRule]) -> None:
    """For a model's own validator: reports rules between keys, all at once."""
    if rules:
        text = "; ".join(message for message, _ in rules)
        raise PydanticCustomError("rules", "{text}", {"text": text, "rules": rules})


def _problems(model: type[BaseModel], source: YamlSource, error: ErrorDetails) -> Iterator[Problem]:
    if error["type"] == "rules":
        for message, keys in error["ctx"]["rules"]:
            yield Problem(source.position(*keys), message)
        return
    path, kind = error["loc"], error["type"]
    if kind == "default_factory_not_called":  # a key that it follows from is wrong: said there
        return
    key = format_key(path)
    if kind == "extra_forbidden":
        yield Problem(source.keys[path], _unknown_key(model, path))
    elif kind == "missing":
        top = source.values[path[:-1]]
        position = SourcePosition(top.label, top.line, top.column, 1, top.text)
        yield Problem(position, f"{key} is missing")
    else:
        position = source.values[path]
        yield Problem(position, f"{key}: {_describe_error(error, position)}")


def _describe_error(error: ErrorDetails, position: SourcePosition) -> str:
    kind, value = error["type"], error["input"]
    if kind in _EXPECTED:
        # YAML reads 3.10 as a number, no as false: an author who means text has to say so.
        quote = kind == "string_type" and isinstance(value, bool | int | float)
        hint = f": write it in quotes, '{position.marked_text}'" if quote else ""
        return f"expected {_EXPECTED[kind]}, got {_describe_value(value, position)}{hint}"
    if kind == "literal_error":
        expected = error["ctx"]["expected"].replace("'", "")
        return f"expected {expected}, got {_describe_value(value, position)}"
    if kind in _LIMITS:
        name, message = _LIMITS[kind]
        return f"{message} {error['ctx'][name]:,.10g}, got {_describe_value(value, position)}"
    return "must not be empty" if kind == "string_too_short" else error["msg"]


def _describe_value(value: Any, position: SourcePosition) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "keys and values"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        digits = value.strip().replace(",", "")
        return f"the text {value!r}" + (f": write {digits}" if digits.isdigit() else "")
    if isinstance(value, bool):
        word = str(value).lower()
        return (
            word
            if position.marked_text.lower() == word
            else f"{position.marked_text}, in YAML {word}"
        )
    return position.marked_text


def _unknown_key(model: type[BaseModel], path: KeyPath) -> str:
    block: Any = model
    for key in path[:-1]:  # an int is an index into a tuple[Model, ...]
        in_list = isinstance(key, int)
        block = get_args(block)[0] if in_list else block.model_fields[key].annotation
    inside = f" in {format_key(path[:-1])}" if path[1:] else ""
    hint = nearest_hint(str(path[-1]), list(block.model_fields))
    return f"unknown key {path[-1]!r}{inside}: {hint}"


def nearest_hint(word: str, known: Sequence[str]) -> str:
    """The known word that it may have been meant to be, else all of them."""
    nearest = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(known)}"


def _sort_key(problem: Problem) -> tuple[bool, int, int]:
    """The file from top to bottom, then the options."""
    position = problem.position
    return position.is_option, position.line, position.column
