"""Every error that a user can cause, with the exit code it ends in.

LaunchError                 exit 1   a run or a host failed
├── RunFailed               exit 1   training ended with an error; its folder is kept
├── Interrupted             exit 130 the user stopped us
└── InputError              exit 2   what was asked for is wrong
    ├── ConfigError         exit 2   a line of YAML or a --set is wrong (file:line:column, caret)
    ├── NotFound            exit 2   no recipe, run or file of that name
    ├── RunBusy             exit 2   a driver is at work in the run's folder
    └── MissingExtra        exit 2   needs packages that are not installed here

The message says what is wrong and where; `fix` says what to do. `launcher.cli` prints both and
never a traceback.
"""

from __future__ import annotations


class LaunchError(Exception):
    """Base of all errors shown to a user. `fix`: the command or the change that helps."""

    exit_code = 1

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


class RunFailed(LaunchError):
    """A run ended with an error. Its folder, checkpoints and log are kept."""


class Interrupted(LaunchError):
    """The user pressed Ctrl-C (or sent SIGTERM)."""

    exit_code = 130


class InputError(LaunchError):
    """What was asked for is wrong."""

    exit_code = 2


class ConfigError(InputError):
    """A key or value in a YAML file or a `--set` is wrong: the message shows the place."""


class NotFound(InputError):
    """No recipe, run or file of that name."""


class RunBusy(InputError):
    """A driver is at work in the run's folder."""


class MissingExtra(InputError):
    """A command needs packages that are not installed here."""
