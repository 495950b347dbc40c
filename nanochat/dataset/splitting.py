"""Long text -> consecutive pieces, cut where a reader would. Pieces add up to the text exactly."""

from __future__ import annotations

import ast
import io
import warnings
from collections.abc import Iterator
from itertools import pairwise

PARAGRAPHS = ("\n\n", "\n\r\n")


def split_text(text: str, limit: int) -> Iterator[str]:
    """Pieces of at most `limit` characters, cut after the last blank line in reach, else newline,
    else at the limit. The first half of a piece is out of reach, so that pieces stay long."""
    start = 0
    while len(text) - start > limit:
        end = _cut(text, start + limit // 2, start + limit)
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def split_python(text: str, limit: int) -> list[str]:
    """Python source by statement: neighbours share a piece of at most `limit` characters; a longer
    class or function is cut between the statements of its body; what is longer still, or does not
    parse, is cut as plain text. Comments go with the statement after them."""
    lines = io.StringIO(text, newline="").readlines()  # as ast counts lines: \n, \r\n and \r
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in someone else's strings
            body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError):
        return list(split_text(text, limit))
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line))
    return [
        piece
        for start, end in _spans(body, 0, len(lines), offsets, limit)
        for piece in split_text(text[offsets[start] : offsets[end]], limit)
    ]


def _cut(text: str, low: int, high: int) -> int:
    for marks in (PARAGRAPHS, ("\n",)):
        end = max(text.rfind(mark, low, high) + len(mark) for mark in marks)
        if end > low:
            return end
    return high


def _spans(
    body: list[ast.stmt], first: int, last: int, offsets: list[int], limit: int
) -> Iterator[tuple[int, int]]:
    """(start, end) lines that tile [first, last), each of whole statements of `body`."""
    ends = [statement.end_lineno or first for statement in body]
    bounds = [first, *ends[:-1], last]
    start = first
    for statement, (begin, end) in zip(body, pairwise(bounds), strict=False):
        if offsets[end] - offsets[start] <= limit:
            continue  # it fits beside those since `start`
        if begin > start:
            yield start, begin
            start = begin
        if offsets[end] - offsets[begin] > limit and isinstance(
            statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ):
            yield from _spans(statement.body, begin, end, offsets, limit)
            start = end
    if last > start:
        yield start, last
