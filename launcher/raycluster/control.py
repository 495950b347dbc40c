"""Starting, watching and stopping the supervisors of a cluster's hosts, from the client."""

from __future__ import annotations

import contextlib
import json
import secrets
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from launcher.errors import CommandFailed, HostError, HostsFailed, HostTimeout
from launcher.raycluster import boot_hook
from launcher.raycluster.environment import CLUSTER_MARK
from launcher.raycluster.spec import ClusterSpec, cluster_folder, short_name
from launcher.ssh.parallel import call_on_all
from launcher.ssh.protocol import Connection

JOBS = "launcher.agent.jobs"
# The names that these modules had until 2026-11: a cluster that was brought up then runs the code
# of that day until the next `up`.
MODULES_BEFORE = {
    "launcher.agent.export": "launcher.runs.exported",
    "launcher.agent.generate": "launcher.runs.speech",
    "launcher.agent.jobs": "launcher.raycluster.jobs",
    "launcher.agent.list_files": "launcher.runs.listed",
    "launcher.agent.probe_shards": "launcher.runs.shards_there",
    "launcher.agent.text_store": "launcher.runs.received",
}
UP_SECONDS = 120.0  # a slow disk reads a gigabyte of torch and Ray for the first time
DOWN_SECONDS = 30.0
GRACE_SECONDS = 5.0  # until a supervisor that is to be seen must be there
MAX_STARTS = 3
POLL_SECONDS = 0.2

# Prints state.json, or {}; then what starts it at boot, if known; then `alive` where the supervisor
# that wrote it lives, `orphans` where only processes of one that was killed do, else `dead`. Plain
# sh: nothing may be installed yet.
# grep -q, because any other fails for environments of others that it may not read.
STATE = """\
cd {folder} 2>/dev/null || {{ echo '{{}}'; echo; echo dead; exit 0; }}
cat state.json 2>/dev/null || echo '{{}}'
echo
echo "$(cat boot 2>/dev/null)"
pid=$(sed -n 's/.*"pid": \\([0-9]*\\).*/\\1/p' state.json 2>/dev/null)
if [ -n "$pid" ] && tr '\\0' ' ' < /proc/$pid/cmdline 2>/dev/null |
  grep -qE "(agent|raycluster)[.]supervisor $HOME/{folder} "
then echo alive
elif grep -qsxzF "{mark}=$HOME/{folder}" /proc/[0-9]*/environ
then echo orphans
else echo dead; fi
"""

# Ends the supervisor, which ends Ray; then whatever a supervisor that was killed has left. The boot
# hook goes first: systemd would start it again.
END = """\
{unhook}if [ -n "{pid}" ]; then
  kill {pid}
  for i in $(seq {tenths}); do kill -0 {pid} 2>/dev/null || break; sleep 0.1; done
  if kill -0 {pid} 2>/dev/null; then echo "supervisor {pid} does not end" >&2; exit 1; fi
fi
for file in $(grep -lsxzF "{mark}=$HOME/{folder}" /proc/[0-9]*/environ); do
  pid=${{file#/proc/}}; kill -9 "${{pid%/environ}}" 2>/dev/null
done
cd {folder} 2>/dev/null && rm -f state.json start.sh login.sh boot; cd
rm -rf .launch/ray/{cluster} "/tmp/launch-$(id -u)-{short}"
exit 0
"""


@dataclass(frozen=True)
class HostState:
    """`status`: up, starting, restarting, down; or orphaned: Ray is there, but nobody looks after
    it. `key`: of the spec that the supervisor has. `boot_hook`: what starts it when its host boots:
    systemd, crontab or none."""

    status: str
    pid: int | None = None
    starts: int = 0
    key: str | None = None
    boot_hook: str | None = None

    @property
    def is_running(self) -> bool:
        """Whether a supervisor is at work."""
        return self.pid is not None


@dataclass(frozen=True)
class StoppedHost:
    """What `stop` did on a host."""

    was_running: bool
    boot_hooks: tuple[str, ...]
    """What would have started Ray at boot and was removed, for people."""


def host_states(connections: Mapping[str, Connection], cluster: str) -> dict[str, HostState]:
    """By node. One command per host, all at once."""
    return call_on_all(connections, lambda connection: host_state(connection, cluster))


def start(
    connections: Mapping[str, Connection],
    specs: Mapping[str, ClusterSpec],
    on_status: Callable[[str, str], None] = lambda node, status: None,
) -> dict[str, str]:
    """Start the supervisors that are not running, and wait until Ray is up on every host.

    Where the head's is not, none may be. specs: what each node is to know, the head's first.
    on_status(node, status) follows it. Returns what starts those at boot that were started.
    Raises HostError or HostsFailed; what was started is then
    stopped, so that no half of a cluster stays behind.
    """
    first = next(iter(specs.values()))
    cluster, folder = first.cluster, cluster_folder(first.cluster)
    head = connections[first.head.name]
    states = host_states(connections, cluster)
    try:
        token = head.read(f"{folder}/token")  # the same again: hosts that are off now have it too
    except FileNotFoundError:
        token = secrets.token_hex(32).encode()
    started: dict[str, Connection] = {}
    hooks: dict[str, str] = {}
    ending: list[bool] = []

    def one(connection: Connection) -> None:
        if not states[connection.name].is_running:
            spec = specs[connection.name]
            connection.write(f"{folder}/token", token, mode=0o600)
            connection.write(f"{folder}/cluster.json", spec.to_bytes())
            started[connection.name] = connection
            connection.write(boot_hook.start_file(cluster), start_script(spec).encode())
            if not ending:
                command = boot_hook.install_and_start(cluster)
                hook = connection.check(command, step="start Ray's supervisor").strip()
                connection.write(f"{folder}/boot", hook.encode() + b"\n")
                hooks[connection.name] = hook

    try:
        call_on_all(connections, one)
        # What the others' Ray says while the head's is not up is no failure of theirs.
        others = {name: each for name, each in connections.items() if name != head.name}
        for some in ({head.name: head}, others):
            call_on_all(some, lambda connection: _wait_until_up(connection, cluster, on_status))
    except BaseException:
        ending.append(True)  # Ctrl-C leaves the threads behind: they start no more
        with contextlib.suppress(HostError, HostsFailed):  # the first error is the one to show
            stop(started, cluster)
        raise
    return hooks


def start_script(spec: ClusterSpec) -> str:
    """Becomes the supervisor, unless one is at work. Its state is written before it can do that
    itself, so that it can be stopped from the first moment on; the search paths are those of the
    login that brought the cluster up, also where nobody has logged in since the host booted."""
    folder = cluster_folder(spec.cluster)
    run = python_command(spec, "launcher.agent.supervisor", f"~/{folder}")
    state = {"status": "starting", "pid": "PID", "starts": 0, "key": spec.key}
    first = json.dumps(state).replace('"PID"', "%s")
    python = f'"$HOME/.launch/env/{spec.env}/bin/python"'
    return f"""\
# Ray of launch's cluster {spec.cluster} on this host: run by `launch cluster up`, and at boot.
cd && mkdir -p {folder}/runs && cd {folder} || exit 1
flock -n lock true || exit 0
[ -x {python} ] || exit 0
[ ! -e login.sh ] || . ./login.sh
printf {shlex.quote(first + chr(92) + "n")} $$ > state.json
exec {run} >> supervisor.log 2>&1 < /dev/null
"""


def stop(connections: Mapping[str, Connection], cluster: str) -> dict[str, StoppedHost]:
    """End the supervisors and with them every process of the cluster."""

    def one(connection: Connection) -> StoppedHost:
        state = host_state(connection, cluster)
        script = END.format(
            pid=state.pid or "", tenths=int(DOWN_SECONDS * 10), mark=CLUSTER_MARK,
            cluster=cluster, short=short_name(cluster), folder=cluster_folder(cluster),
            unhook=boot_hook.remove(cluster),
        )  # fmt: skip
        output = connection.check(script, step="stop Ray", timeout=DOWN_SECONDS + 10)
        lines = [line for line in output.splitlines() if line.startswith(boot_hook.REMOVED)]
        return StoppedHost(state.is_running, tuple(lines))

    return call_on_all(connections, one)


def python_command(spec: ClusterSpec, module: str, *arguments: str) -> str:
    """A shell command that runs one of our modules in the cluster's environment on a host.

    Arguments reach it as they are, but for a leading ~/, which is the home folder there.
    """
    words = " ".join(
        f'"$HOME"/{shlex.quote(word[2:])}' if word.startswith("~/") else shlex.quote(word)
        for word in arguments
    )
    code = f'"$HOME/.launch/code/{spec.code}"'
    if module in MODULES_BEFORE:
        module = (
            f"$([ -d {code}/launcher/agent ] && echo {module} || echo {MODULES_BEFORE[module]})"
        )
    return (
        f'env LAUNCH_HOME="$HOME/.launch" PYTHONPATH={code} '
        f'"$HOME/.launch/env/{spec.env}/bin/python" -P -m {module} {words}'
    )


def read_spec(head: Connection, cluster: str) -> ClusterSpec | None:
    """What the head was brought up with last; None where it never was.

    Raises HostError where the file is torn or another version's.
    """
    path = f"{cluster_folder(cluster)}/cluster.json"
    try:
        return ClusterSpec.from_bytes(head.read(path))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise HostError(
            head.name,
            f"~/{path} is torn or of another version of launch ({error})",
            fix=f"remove it there, then: launch cluster up {cluster}",
        ) from None


def ask_host(
    host: Connection, spec: ClusterSpec, module: str, *arguments: str, seconds: float = 60
) -> Any:
    """The JSON that a module of ours prints there. Raises CommandFailed with what it says."""
    command = python_command(spec, module, *arguments)
    output = host.check(command, step=module, timeout=seconds)
    return json.loads(output)


def active_runs(connections: Mapping[str, Connection], cluster: str) -> list[str]:
    """Runs whose drivers are at work or about to be, on whichever host was made the head."""

    def one(connection: Connection) -> list[str]:
        spec = read_spec(connection, cluster)
        if spec is None or not spec.is_head:
            return []
        names: list[str] = ask_host(
            connection, spec, JOBS, "running", f"~/{cluster_folder(cluster)}"
        )
        return names

    return [name for names in call_on_all(connections, one).values() for name in names]


def host_state(connection: Connection, cluster: str) -> HostState:
    output = connection.check(
        STATE.format(folder=cluster_folder(cluster), mark=CLUSTER_MARK),
        step="ask Ray's supervisor",
    )
    *lines, hook, alive = output.strip("\n").split("\n")
    try:
        state = json.loads("\n".join(lines) or "{}")
    except ValueError:
        state = {}
    if alive != "alive":  # no pid: another process may have it by now
        return HostState("orphaned" if alive == "orphans" else "down")
    status, starts = state.get("status", "starting"), state.get("starts", 0)
    return HostState(status, state.get("pid"), starts, state.get("key"), hook or None)


def _wait_until_up(
    connection: Connection, cluster: str, on_status: Callable[[str, str], None]
) -> None:
    """By reading its state.json: a process per look would slow a one-core host down."""
    began, shown = time.monotonic(), ""
    before: int | None = None  # starts in the supervisor's life until now
    while shown != "up":
        status, starts = _written_state(connection, cluster)
        before = starts if before is None else before
        seconds = time.monotonic() - began
        gone = seconds > GRACE_SECONDS and not host_state(connection, cluster).is_running
        failing = gone or starts - before >= MAX_STARTS or seconds > UP_SECONDS
        if status != "up" and failing:
            raise _why_down(connection, cluster)
        if status != shown:
            on_status(connection.name, status)
            shown = status
        time.sleep(POLL_SECONDS)


def _written_state(connection: Connection, cluster: str) -> tuple[str, int]:
    """Status and number of starts, as the supervisor wrote them last."""
    try:
        state = json.loads(connection.read(f"{cluster_folder(cluster)}/state.json"))
    except (FileNotFoundError, ValueError):
        return "starting", 0
    return state["status"], state["starts"]


def _why_down(connection: Connection, cluster: str) -> HostError:
    log = f"{cluster_folder(cluster)}/supervisor.log"
    try:
        last = connection.read(log).decode(errors="replace").strip().splitlines()[-6:]
    except FileNotFoundError:
        last = []
    said = "\n".join(f"  {line}" for line in last)
    kind = CommandFailed if said else HostTimeout
    return kind(
        connection.name,
        f"Ray did not come up\n{said}".rstrip(),
        fix=f"read ~/{log} on {connection.name}",
    )
