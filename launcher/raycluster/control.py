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
from launcher.raycluster.environment import CLUSTER_VARIABLE
from launcher.raycluster.spec import ClusterSpec, cluster_folder, short_name
from launcher.ssh.parallel import call_on_all
from launcher.ssh.protocol import Connection

JOBS_MODULE = "launcher.agent.jobs"
# The names that these modules had until 2026-11: a cluster that was brought up then runs the code
# of that day until the next `up`.
EARLIER_MODULES = {
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
STATE_SCRIPT = """\
cd {folder} 2>/dev/null || {{ echo '{{}}'; echo; echo dead; exit 0; }}
cat state.json 2>/dev/null || echo '{{}}'
echo
echo "$(cat boot 2>/dev/null)"
pid=$(sed -n 's/.*"pid": \\([0-9]*\\).*/\\1/p' state.json 2>/dev/null)
if [ -n "$pid" ] && tr '\\0' ' ' < /proc/$pid/cmdline 2>/dev/null |
  grep -qF -e "agent.supervisor $HOME/{folder} " -e "raycluster.supervisor $HOME/{folder} "
then echo alive
elif grep -qsxzF "{mark}=$HOME/{folder}" /proc/[0-9]*/environ
then echo orphans
else echo dead; fi
"""

# Ends the supervisor, which ends Ray; then whatever a supervisor that was killed has left. The boot
# hook goes first: systemd would start it again.
STOP_SCRIPT = """\
{remove_boot_hook}if [ -n "{pid}" ]; then
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
    """What `stop_ray` did on a host."""

    was_running: bool
    boot_hooks: tuple[str, ...]
    """What would have started Ray at boot and was removed, for people."""


def host_states(connections: Mapping[str, Connection], cluster: str) -> dict[str, HostState]:
    """By node. One command per host, all at once."""
    return call_on_all(connections, lambda connection: host_state(connection, cluster))


def start_ray(
    connections: Mapping[str, Connection],
    specs: Mapping[str, ClusterSpec],
    on_status: Callable[[str, str], None] = lambda node, status: None,
) -> dict[str, str]:
    """Start the supervisors that are not running, and wait until Ray is up on every host.

    If the head's supervisor is not running, no other may be. `specs`: each node's own, the head's
    first. `on_status(node, status)` is called when a status changes. Return by which boot hook each
    supervisor that was started will start at boot. Raises HostError or HostsFailed; what was
    started is stopped then, so that no half of a cluster stays behind.
    """
    head_spec = next(iter(specs.values()))
    cluster, folder = head_spec.cluster, cluster_folder(head_spec.cluster)
    head = connections[head_spec.head.name]
    states = host_states(connections, cluster)
    try:
        token = head.read(f"{folder}/token")  # the same again: hosts that are off now have it too
    except FileNotFoundError:
        token = secrets.token_hex(32).encode()
    started: dict[str, Connection] = {}
    hooks: dict[str, str] = {}
    cancelled: list[bool] = []

    def start_on_host(connection: Connection) -> None:
        if not states[connection.name].is_running:
            spec = specs[connection.name]
            connection.write(f"{folder}/token", token, mode=0o600)
            connection.write(f"{folder}/cluster.json", spec.to_bytes())
            started[connection.name] = connection
            connection.write(boot_hook.start_file(cluster), start_script(spec).encode())
            if not cancelled:
                command = boot_hook.install_and_start(cluster)
                hook = connection.check(command, step="start Ray's supervisor").strip()
                connection.write(f"{folder}/boot", hook.encode() + b"\n")
                hooks[connection.name] = hook

    try:
        call_on_all(connections, start_on_host)
        # What the others' Ray says while the head's is not up is no failure of theirs.
        others = {name: host for name, host in connections.items() if name != head.name}
        for group in ({head.name: head}, others):
            call_on_all(group, lambda connection: _wait_until_up(connection, cluster, on_status))
    except BaseException:
        cancelled.append(True)  # Ctrl-C leaves the threads behind: they start no more
        with contextlib.suppress(HostError, HostsFailed):  # the first error is the one to show
            stop_ray(started, cluster)
        raise
    return hooks


def start_script(spec: ClusterSpec) -> str:
    """Becomes the supervisor, unless one is at work. Its state is written before it can do that
    itself, so that it can be stopped from the first moment on; the search paths are those of the
    login that brought the cluster up, also where nobody has logged in since the host booted."""
    folder = cluster_folder(spec.cluster)
    command = python_command(spec, "launcher.agent.supervisor", f"~/{folder}")
    state = {"status": "starting", "pid": "PID", "starts": 0, "key": spec.key}
    initial_state = json.dumps(state).replace('"PID"', "%s")
    python = f'"$HOME/.launch/env/{spec.env}/bin/python"'
    return f"""\
# Ray of launch's cluster {spec.cluster} on this host: run by `launch cluster up`, and at boot.
cd && mkdir -p {folder}/runs && cd {folder} || exit 1
flock -n lock true || exit 0
[ -x {python} ] || exit 0
[ ! -e login.sh ] || . ./login.sh
printf {shlex.quote(initial_state + chr(92) + "n")} $$ > state.json
exec {command} >> supervisor.log 2>&1 < /dev/null
"""


def stop_ray(connections: Mapping[str, Connection], cluster: str) -> dict[str, StoppedHost]:
    """End the supervisors and with them every process of the cluster."""

    def stop_on_host(connection: Connection) -> StoppedHost:
        state = host_state(connection, cluster)
        script = STOP_SCRIPT.format(
            pid=state.pid or "", tenths=int(DOWN_SECONDS * 10), mark=CLUSTER_VARIABLE,
            cluster=cluster, short=short_name(cluster), folder=cluster_folder(cluster),
            remove_boot_hook=boot_hook.remove(cluster),
        )  # fmt: skip
        output = connection.check(script, step="stop Ray", timeout=DOWN_SECONDS + 10)
        prefixes = boot_hook.REMOVED_PREFIXES
        lines = [line for line in output.splitlines() if line.startswith(prefixes)]
        return StoppedHost(state.is_running, tuple(lines))

    return call_on_all(connections, stop_on_host)


def python_command(spec: ClusterSpec, module: str, *arguments: str) -> str:
    """A shell command that runs one of our modules in the cluster's environment on a host.

    Arguments reach it as they are, but for a leading ~/, which is the home folder there.
    """
    quoted = " ".join(
        f'"$HOME"/{shlex.quote(word[2:])}' if word.startswith("~/") else shlex.quote(word)
        for word in arguments
    )
    code = f'"$HOME/.launch/code/{spec.code}"'
    if module in EARLIER_MODULES:
        module = (
            f"$([ -d {code}/launcher/agent ] && echo {module} || echo {EARLIER_MODULES[module]})"
        )
    return (
        f'env LAUNCH_HOME="$HOME/.launch" PYTHONPATH={code} '
        f'"$HOME/.launch/env/{spec.env}/bin/python" -P -m {module} {quoted}'
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

    def runs_on_host(connection: Connection) -> list[str]:
        spec = read_spec(connection, cluster)
        if spec is None or not spec.is_head:
            return []
        names: list[str] = ask_host(
            connection, spec, JOBS_MODULE, "running", f"~/{cluster_folder(cluster)}"
        )
        return names

    return [name for names in call_on_all(connections, runs_on_host).values() for name in names]


def host_state(connection: Connection, cluster: str) -> HostState:
    output = connection.check(
        STATE_SCRIPT.format(folder=cluster_folder(cluster), mark=CLUSTER_VARIABLE),
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
    started_at, last_status = time.monotonic(), ""
    starts_before: int | None = None  # starts in the supervisor's life until now
    while last_status != "up":
        status, starts = _read_state(connection, cluster)
        starts_before = starts if starts_before is None else starts_before
        seconds = time.monotonic() - started_at
        has_exited = seconds > GRACE_SECONDS and not host_state(connection, cluster).is_running
        has_failed = has_exited or starts - starts_before >= MAX_STARTS or seconds > UP_SECONDS
        if status != "up" and has_failed:
            raise _down_error(connection, cluster)
        if status != last_status:
            on_status(connection.name, status)
            last_status = status
        time.sleep(POLL_SECONDS)


def _read_state(connection: Connection, cluster: str) -> tuple[str, int]:
    """Status and number of starts, as the supervisor wrote them last."""
    try:
        state = json.loads(connection.read(f"{cluster_folder(cluster)}/state.json"))
    except (FileNotFoundError, ValueError):
        return "starting", 0
    return state["status"], state["starts"]


def _down_error(connection: Connection, cluster: str) -> HostError:
    log = f"{cluster_folder(cluster)}/supervisor.log"
    try:
        last_lines = connection.read(log).decode(errors="replace").strip().splitlines()[-6:]
    except FileNotFoundError:
        last_lines = []
    log_tail = "\n".join(f"  {line}" for line in last_lines)
    kind = CommandFailed if log_tail else HostTimeout
    return kind(
        connection.name,
        f"Ray did not come up\n{log_tail}".rstrip(),
        fix=f"read ~/{log} on {connection.name}",
    )
