"""Every error that a user can cause, with the exit code it ends in.

LaunchError                 exit 1   a run or a host failed
├── RunFailed               exit 1   training ended with an error; its folder is kept
├── HostError               exit 1   something about one host: its name is in `host`
│   ├── Unreachable         exit 1   no answer, refused, no route, no such name
│   ├── Untrusted           exit 1   its host key is not known
│   ├── KeyChanged          exit 1   its host key is another one than the one known
│   ├── LoginRefused        exit 1   no key or user of ours is accepted
│   ├── ConnectionLost      exit 1   it answered before and does not any more
│   ├── HostTimeout         exit 1   a step took longer than it may
│   ├── DiskFull            exit 1   no room for what has to be written there
│   └── CommandFailed       exit 1   a command ended with an error
├── HostsFailed             exit 1   several of these, one per host
├── Interrupted             exit 130 the user stopped us
└── InputError              exit 2   what was asked for is wrong
    ├── ConfigError         exit 2   a line of YAML or a --set is wrong (file:line:column, caret)
    ├── NotFound            exit 2   no recipe, run or file of that name
    ├── RunBusy             exit 2   a driver is at work in the run's folder
    │   └── HostsInUse      exit 2   another run uses the hosts of this one
    └── MissingExtra        exit 2   needs packages that are not installed here

NanochatError               exit 1   errors of `nanochat.errors`, which knows nothing of this module
├── DataError               exit 1   text or prepared data is wrong (exit 2 if the command named it:
│                                    raised again as ConfigError or InputError)
├── CheckpointError         exit 1   a checkpoint cannot be written
├── IdentityError           exit 1   a checkpoint belongs to another run
├── TrainingError           exit 1   the loss has diverged, or it or the weights are not finite
└── BatchSplitError         exit 1   the rows of a step cannot be split among these ranks

Both trees have the same form: `message` says what is wrong and where, `fix` says what to do; both
are lower case without a full stop. `launcher.cli.main` prints both and never a traceback. Workers
and drivers pass an error of either tree on as the end of the run: RunFailed for who follows it.
"""

from __future__ import annotations

from collections.abc import Sequence


class LaunchError(Exception):
    """Base of all errors shown to a user. `fix`: the command or the change that helps."""

    exit_code = 1

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


class RunFailed(LaunchError):
    """A run ended with an error. Its folder, checkpoints and log are kept."""


class HostError(LaunchError):
    """Something about one host. `host` is the node's name in the cluster file."""

    def __init__(self, host: str, message: str, *, fix: str | None = None) -> None:
        super().__init__(f"{host}: {message}", fix=fix)
        self.host = host

    def through(self, host: str) -> HostError:
        """The same of a jump host, as an error of the host behind it, which is the one that was
        asked for."""
        words = self.message.removeprefix(f"{self.host}: ")
        return type(self)(host, f"its jump host {self.host}: {words}", fix=self.fix)


class Unreachable(HostError):
    """No answer, refused, no route, or no such name."""


class Untrusted(HostError):
    """Its host key is not known."""


class KeyChanged(HostError):
    """Its host key is another one than the one known."""


class LoginRefused(HostError):
    """No key or user of ours is accepted."""


class ConnectionLost(HostError):
    """It answered before and does not any more."""


class HostTimeout(HostError):
    """A step took longer than it may."""


class DiskFull(HostError):
    """No room for what has to be written there."""


class CommandFailed(HostError):
    """A command ended with an error."""


class HostsFailed(LaunchError):
    """Errors of several hosts, in the order of the cluster file."""

    def __init__(self, errors: Sequence[HostError]) -> None:
        fixes = list(dict.fromkeys(error.fix for error in errors if error.fix))
        super().__init__("\n".join(e.message for e in errors), fix="\n".join(fixes) or None)
        self.errors = tuple(errors)


class Interrupted(LaunchError):
    """The user pressed Ctrl-C (or sent SIGTERM). An empty message: all has been said."""

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


class HostsInUse(RunBusy):
    """Another run uses the hosts of this one."""

    def __init__(self, run: str, *, fix: str | None = None) -> None:
        super().__init__(hosts_in_use(run), fix=fix)


def hosts_in_use(run: str) -> str:
    """The one sentence for this, in errors and while a run waits."""
    return f"run '{run}' uses these hosts"


class MissingExtra(InputError):
    """A command needs packages that are not installed here."""
