"""Every error that a caller of nanochat is expected to handle.

NanochatError             anything below
├── DataError             the user's text, its folder or prepared data is wrong or unreadable
├── CheckpointError       a checkpoint cannot be written
├── IdentityError         a checkpoint belongs to another run
├── TrainingError         the loss has diverged, or it or the weights are not finite
└── BatchSplitError       the rows of a step cannot be split among these ranks

The conventions are those of `launcher.errors`: `message` says what is wrong and where, `fix` what
to do; both are lower case without a full stop. `str(error)` is the message. A traceback, which is
all that a bare process prints, shows the fix below it.
"""

from __future__ import annotations


class NanochatError(Exception):
    """Base of all errors of this package. `fix`: the command or the change that helps."""

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        if fix is not None:
            self.add_note(f"fix: {fix}")


class DataError(NanochatError):
    """The user's text, its folder, or prepared data is wrong or unreadable."""


class CheckpointError(NanochatError):
    """A checkpoint cannot be written."""


class IdentityError(NanochatError):
    """A checkpoint belongs to another run: the message lists the differences."""


class TrainingError(NanochatError):
    """Training itself went wrong: the loss has diverged, or it or the weights are not finite."""


class BatchSplitError(NanochatError):
    """The rows of a step cannot be split among these ranks."""


def root_cause(error: BaseException) -> str:
    """Return the message of the deepest cause: requests wraps the system's into two of its own."""
    cause = error
    while (
        deeper := cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    ) is not None:
        cause = deeper
    return str(cause) or type(cause).__name__
