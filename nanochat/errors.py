"""Errors that a caller is expected to handle.

NanochatError
├── DataError         something is wrong with the user's text or with what was made from it
├── CheckpointError   a checkpoint cannot be written
├── IdentityError     a checkpoint belongs to another run
└── TrainingError     the loss has exploded, or it or the weights are no numbers any more

`str(error)` says what is wrong, where, and on the next line what to do; `message` and `fix` hold
the two apart.
"""

from __future__ import annotations


class NanochatError(Exception):
    """Base of all errors of this package. `fix` is one line: what helps."""

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message if fix is None else f"{message}\n{fix}")
        self.message = message
        self.fix = fix


class DataError(NanochatError):
    """Something is wrong with the user's text, its folder, or prepared data."""


class CheckpointError(NanochatError):
    """A checkpoint cannot be written."""


class IdentityError(NanochatError):
    """A checkpoint belongs to another run: the message has the differences."""


class TrainingError(NanochatError):
    """Training itself went wrong: the loss has exploded or is no number."""


class ShareError(NanochatError):
    """The rows of a step cannot be dealt out to these ranks."""
