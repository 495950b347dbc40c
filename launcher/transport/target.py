"""What a node's `host:` means: address, user, port and keys, as OpenSSH would find them."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import HostError, HostTimeout

if TYPE_CHECKING:
    from launcher.config.cluster import LoadedCluster, Node

SSH_PORT = 22
SSH_SECONDS = 10.0  # `ssh -G` takes 10 ms; a `Match exec` of the user's may take longer
NO_SSH = "there is no ssh program here, so ~/.ssh/config was not read"

Settings = Mapping[str, Sequence[str]]  # as `ssh -G` prints them: keyword -> its values, in order


@dataclass(frozen=True)
class Target:
    """One host to connect to, and what is known about it here."""

    name: str  # the node's in the cluster file
    address: str  # a name or an IP address, to be connected to
    port: int
    user: str
    cluster: str  # as typed after `launch cluster trust`
    pins: Path  # the cluster's own known_hosts
    known_hosts: tuple[Path, ...]  # the user's and the system's
    first_key: Path | None  # the node's `key:`, tried before all others
    keys: tuple[Path, ...]  # all key files, whether they exist or not
    identities_only: bool  # of the agent's keys, only those that are among `keys`
    agent: str | None  # the agent's socket; None for none
    host_key_alias: str | None = None
    note: str | None = None  # what was not looked at

    @property
    def place(self) -> str:
        """Its name in a known_hosts file."""
        if self.host_key_alias:
            return self.host_key_alias
        address = self.address.lower()
        return address if self.port == SSH_PORT else f"[{address}]:{self.port}"


def target_of(loaded: LoadedCluster, node: Node) -> Target:
    """A node of a cluster file, which messages call by its name, or its path where it lies
    elsewhere than in a folder of clusters. Raises as `resolve` does."""
    path = loaded.path
    named = path.stem if path.parent.name == "clusters" else str(path)
    return resolve(node, loaded.known_hosts, cluster=named)


def resolve(node: Node, known_hosts: Path, *, cluster: str | None = None) -> Target:
    """Ask `ssh -G`, which follows Include, Match and aliases. The node's own keys win over it.

    `cluster`: how the user named the cluster; by default the name of `known_hosts`.
    $LAUNCH_SSH_CONFIG names another file than the user's and the system's configuration: ssh looks
    for those where the password file says, whatever $HOME is, so that tests could not.
    Raises HostError where the file is wrong or asks for a jump host, or the node's key is missing.
    """
    first_key = Path(node.key).expanduser() if node.key else None
    if first_key and not first_key.is_file():
        message = f"its key {node.key} is not a file"
        raise HostError(node.name, message, fix=f"correct `key:` of node {node.name!r}")
    ssh = shutil.which("ssh")
    settings = _ask_ssh(ssh, node, first_key) if ssh else _defaults(node)
    for keyword in ("proxyjump", "proxycommand"):
        if (value := settings.get(keyword, ["none"])[0]) != "none":
            message = f"its ssh configuration has {keyword} {value}: not supported yet"
            raise HostError(node.name, message, fix="use a host that is reached directly")
    address = settings["hostname"][0]
    user = settings["user"][0]
    port = int(settings["port"][0])
    tokens = {"d": str(Path.home()), "u": getpass.getuser(), "h": address, "n": node.host}
    tokens |= {"r": user, "p": str(port), "%": "%"}
    files = [_expanded(value, tokens) for value in settings.get("identityfile", ())]
    return Target(
        name=node.name,
        address=address,
        port=port,
        user=user,
        cluster=cluster or known_hosts.name.removesuffix(".known_hosts"),
        pins=known_hosts,
        known_hosts=tuple(
            _expanded(path, tokens)
            for keyword in ("userknownhostsfile", "globalknownhostsfile")
            for path in settings.get(keyword, [""])[0].split()
            if path != "none"
        ),
        first_key=first_key,
        keys=tuple(dict.fromkeys([first_key, *files] if first_key else files)),
        identities_only=settings.get("identitiesonly", ["no"])[0] == "yes",
        agent=_agent(settings.get("identityagent", ["SSH_AUTH_SOCK"])[0], tokens),
        host_key_alias=settings.get("hostkeyalias", [None])[0],
        note=None if ssh else NO_SSH,
    )


def _ask_ssh(ssh: str, node: Node, key: Path | None) -> Settings:
    command = [ssh, "-G"]
    if config := os.environ.get("LAUNCH_SSH_CONFIG"):
        command += ["-F", config]
    for option, value in (("-l", node.user), ("-p", node.port), ("-i", key)):
        if value is not None:
            command += [option, str(value)]
    try:
        done = subprocess.run(
            [*command, "--", node.host], stdin=subprocess.DEVNULL, capture_output=True,
            encoding="utf-8", errors="replace", timeout=SSH_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        message = f"reading the ssh configuration took longer than {SSH_SECONDS:g} s"
        raise HostTimeout(node.name, message, fix=f"try: ssh -G {node.host}") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no reason given"]
        message = f"ssh refuses its configuration: {said[0]}"
        raise HostError(node.name, message, fix=f"correct it until this works: ssh {node.host}")
    settings = defaultdict(list)
    for line in done.stdout.splitlines():
        keyword, _, value = line.partition(" ")
        settings[keyword].append(value)
    return settings


def _defaults(node: Node) -> Settings:
    """What ssh says without any configuration file."""
    return {
        "hostname": [node.host],
        "user": [node.user or getpass.getuser()],
        "port": [str(node.port or SSH_PORT)],
        "identityfile": [f"~/.ssh/id_{kind}" for kind in ("rsa", "ecdsa", "ed25519")],
        "userknownhostsfile": ["~/.ssh/known_hosts ~/.ssh/known_hosts2"],
    }


def _expanded(path: str, tokens: Mapping[str, str]) -> Path:
    """%-tokens, ${VARIABLES} and ~, as in ssh_config(5)."""
    replaced = re.sub(r"%(.)", lambda found: tokens.get(found[1], found[0]), path)
    return Path(os.path.expandvars(replaced)).expanduser()


def _agent(setting: str, tokens: Mapping[str, str]) -> str | None:
    """The socket. IdentityAgent is a path, $VARIABLE, SSH_AUTH_SOCK or none."""
    if setting == "none":
        return None
    if setting == "SSH_AUTH_SOCK" or setting.startswith("$"):
        return os.environ.get(setting.strip("${}")) or None
    return str(_expanded(setting, tokens))


def openssh_command(target: Target) -> list[str]:
    """What reaches the same host with the user's own ssh program, its keys verified as ours are."""
    known = " ".join(f'"{path}"' for path in (target.pins, *target.known_hosts))
    options = ["-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes"]
    if config := os.environ.get("LAUNCH_SSH_CONFIG"):
        options = ["-F", config, *options]
    if target.host_key_alias:
        options += ["-o", f"HostKeyAlias={target.host_key_alias}"]
    # It connects to an address, for which the blocks of an alias do not count: so they are said.
    files = [path for path in (target.first_key, *target.keys) if path and path.is_file()]
    keys = [part for path in files for part in ("-i", str(path))]
    options += ["-o", f"IdentityAgent={target.agent or 'none'}"]
    options += ["-o", "IdentitiesOnly=yes"] * target.identities_only
    place = ["-p", str(target.port), "-l", target.user, target.address]
    return ["ssh", *options, *keys, *place]
