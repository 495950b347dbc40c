"""What a node's `host:` means: address, user, port and keys, as OpenSSH would find them."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.config.address import SSH_PORT, parse_address
from launcher.errors import HostError, HostTimeout
from launcher.formatting import format_duration

if TYPE_CHECKING:
    from launcher.config.loaded_cluster import LoadedCluster
    from launcher.config.node import Node

MAX_JUMPS = 8  # more is a circle
SSH_SECONDS = 10.0  # `ssh -G` takes 10 ms; a `Match exec` of the user's may take longer
NO_SSH = "there is no ssh program here, so ~/.ssh/config was not read"

Settings = Mapping[str, Sequence[str]]  # as `ssh -G` prints them: keyword -> its values, in order


@dataclass(frozen=True)
class SshTarget:
    """One host to connect to, and what is known about it here."""

    name: str  # the node's in the cluster file
    address: str  # a name or an IP address, to be connected to
    port: int
    user: str
    cluster: str  # as typed after `launch cluster trust`
    cluster_known_hosts: Path  # the cluster's own known_hosts
    known_hosts: tuple[Path, ...]  # the user's and the system's
    node_key: Path | None  # the node's `key:`, tried before all others
    key_files: tuple[Path, ...]  # all key files, whether they exist or not
    identities_only: bool  # of the agent's keys, only those that are among `key_files`
    agent_socket: str | None  # the agent's socket; None for none
    host_key_alias: str | None = None
    jump: SshTarget | None = None  # the host to go through, which may have one of its own
    proxy_command: str | None = None  # the user's own way to it
    config_note: str | None = None  # what of its configuration was not read
    node_host: str | None = None  # `host:` of a node, as its cluster file has it
    other_node_names: tuple[str, ...] = ()  # the other nodes' names in known_hosts files
    may_prompt: bool = True  # for passphrases and passwords, where there is a terminal

    @property
    def known_host_name(self) -> str:
        """Its name in a known_hosts file."""
        return self.host_key_alias or format_known_host(self.address, self.port)


def format_known_host(address: str, port: int | None) -> str:
    """As known_hosts files write it: pc1, or [pc1]:2222."""
    address = address.lower()
    return address if port in (SSH_PORT, None) else f"[{address}]:{port}"


def node_target(loaded: LoadedCluster, node: Node) -> SshTarget:
    """A node of a cluster file, which messages call by its name, or its path where it lies
    elsewhere than in a folder of clusters. Raises as `resolve_target` does."""
    path = loaded.path
    named = path.stem if path.parent.name == "clusters" else str(path)
    nodes = {other.name: other for other in loaded.file_nodes}
    return resolve_target(node, loaded.known_hosts, cluster=named, nodes=nodes)


def resolve_target(
    node: Node,
    known_hosts: Path,
    *,
    cluster: str | None = None,
    nodes: Mapping[str, Node] | None = None,
    jumps: int = 0,
) -> SshTarget:
    """Ask `ssh -G`, which follows Include, Match and aliases. The node's own keys win over it.

    `cluster`: how the user named the cluster; by default the name of `known_hosts`. `nodes`: of the
    cluster, which a node's `jump:` may name. `jumps`: hosts between it and the one that is meant.
    $LAUNCH_SSH_CONFIG names another file than the user's and the system's configuration: ssh looks
    for those where the password file says, whatever $HOME is, so that tests could not.
    Raises HostError where the file is wrong, the node's key is missing or jump hosts go round in
    circles.
    """
    if jumps > MAX_JUMPS:
        fix = "correct `jump:` in the cluster file, or ProxyJump in ~/.ssh/config"
        raise HostError(node.name, "its jump hosts go round in circles", fix=fix)
    first_key = Path(node.key).expanduser() if node.key else None
    if first_key and not first_key.is_file():
        message = f"its key {node.key} is not a file"
        raise HostError(node.name, message, fix=f"correct `key:` of node {node.name!r}")
    ssh = shutil.which("ssh")
    settings = _ask_ssh(ssh, node, first_key) if ssh else _default_settings(node)
    address = settings["hostname"][0]
    user = settings["user"][0]
    port = int(settings["port"][0])
    tokens = {"d": str(Path.home()), "u": getpass.getuser(), "h": address, "n": node.host}
    tokens |= {"r": user, "p": str(port), "%": "%"}
    files = [_expand_path(value, tokens) for value in settings.get("identityfile", ())]
    chain = node.jump or settings.get("proxyjump", ["none"])[0]
    command = settings.get("proxycommand", ["none"])[0] if node.jump is None else "none"
    jump = None
    if chain != "none":
        try:
            jump = _jump_target(
                chain, known_hosts, cluster=cluster, nodes=nodes or {}, jumps=jumps + 1
            )
        except HostError as error:
            raise error.through(node.name) if not jumps else error from None
    return SshTarget(
        name=node.name,
        jump=jump,
        proxy_command=None if jump or command == "none" else _replace_tokens(command, tokens),
        address=address,
        port=port,
        user=user,
        cluster=cluster or known_hosts.name.removesuffix(".known_hosts"),
        cluster_known_hosts=known_hosts,
        known_hosts=tuple(
            _expand_path(path, tokens)
            for keyword in ("userknownhostsfile", "globalknownhostsfile")
            for path in settings.get(keyword, [""])[0].split()
            if path != "none"
        ),
        node_key=first_key,
        key_files=tuple(dict.fromkeys([first_key, *files] if first_key else files)),
        identities_only=settings.get("identitiesonly", ["no"])[0] == "yes",
        agent_socket=_agent_socket(settings.get("identityagent", ["SSH_AUTH_SOCK"])[0], tokens),
        host_key_alias=settings.get("hostkeyalias", [None])[0],
        config_note=None if ssh else NO_SSH,
        node_host=node.host if nodes is not None else None,
        other_node_names=tuple(
            format_known_host(other.host, other.port)
            for other in (nodes or {}).values()
            if other != node
        ),
        may_prompt=settings.get("batchmode", ["no"])[0] != "yes",
    )


def _jump_target(
    chain: str, known_hosts: Path, *, cluster: str | None, nodes: Mapping[str, Node], jumps: int
) -> SshTarget:
    """The last host of [USER@]HOST[:PORT],..., reached through those before it; the first one as
    its own configuration says."""
    before, _, last = chain.rpartition(",")
    hop = nodes.get(last) or _parse_hop(last)
    if before:
        hop = hop.model_copy(update={"jump": before})
    return resolve_target(hop, known_hosts, cluster=cluster, nodes=nodes, jumps=jumps)


def _parse_hop(text: str) -> Node:
    from launcher.config.node import Node

    address = parse_address(text.removeprefix("ssh://").rstrip("/"))
    if address is None or not 1 <= (SSH_PORT if address.port is None else address.port) <= 65535:
        raise HostError(text, "is no jump host", fix="write it as [USER@]HOST[:PORT]")
    hop = Node(host=address.host, user=address.user, port=address.port)
    return hop.model_copy(update={"name": address.host})  # an IPv6 address is no name of a node


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
        message = f"reading the ssh configuration took longer than {format_duration(SSH_SECONDS)}"
        raise HostTimeout(node.name, message, fix=f"try: ssh -G {node.host}") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        message = f"ssh refuses its configuration: {lines[0]}"
        raise HostError(node.name, message, fix=f"correct it until this works: ssh {node.host}")
    settings = defaultdict(list)
    for line in done.stdout.splitlines():
        keyword, _, value = line.partition(" ")
        settings[keyword].append(value)
    return settings


def _default_settings(node: Node) -> Settings:
    """What ssh says without any configuration file."""
    return {
        "hostname": [node.host],
        "user": [node.user or getpass.getuser()],
        "port": [str(node.port or SSH_PORT)],
        "identityfile": [f"~/.ssh/id_{kind}" for kind in ("rsa", "ecdsa", "ed25519")],
        "userknownhostsfile": ["~/.ssh/known_hosts ~/.ssh/known_hosts2"],
    }


def _expand_path(path: str, tokens: Mapping[str, str]) -> Path:
    """%-tokens, ${VARIABLES} and ~, as in ssh_config(5)."""
    return Path(os.path.expandvars(_replace_tokens(path, tokens))).expanduser()


def _replace_tokens(text: str, tokens: Mapping[str, str]) -> str:
    return re.sub(r"%(.)", lambda found: tokens.get(found[1], found[0]), text)


def _agent_socket(setting: str, tokens: Mapping[str, str]) -> str | None:
    """The socket. IdentityAgent is a path, $VARIABLE, SSH_AUTH_SOCK or none."""
    if setting == "none":
        return None
    if setting == "SSH_AUTH_SOCK" or setting.startswith("$"):
        return os.environ.get(setting.strip("${}")) or None
    return str(_expand_path(setting, tokens))


def openssh_command(target: SshTarget) -> list[str]:
    """What reaches the same host with the user's own ssh program, its keys verified as ours are."""
    known = " ".join(f'"{path}"' for path in (target.cluster_known_hosts, *target.known_hosts))
    options = ["-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes"]
    if config := os.environ.get("LAUNCH_SSH_CONFIG"):
        options = ["-F", config, *options]
    if target.host_key_alias:
        options += ["-o", f"HostKeyAlias={target.host_key_alias}"]
    # It connects to an address, for which the blocks of an alias do not count: they are repeated.
    files = [path for path in (target.node_key, *target.key_files) if path and path.is_file()]
    keys = [part for path in files for part in ("-i", str(path))]
    options += ["-o", f"IdentityAgent={target.agent_socket or 'none'}"]
    options += ["-o", "IdentitiesOnly=yes"] * target.identities_only
    options += _proxy_options(target)
    destination = ["-p", str(target.port), "-l", target.user, target.address]
    return ["ssh", *options, *keys, *destination]


def _proxy_options(target: SshTarget) -> list[str]:
    """Not -J: the ssh of a jump host would read its own known_hosts."""
    if target.jump is not None:
        onward = [*openssh_command(target.jump), "-W", "[%h]:%p"]
        arguments = [word if word == "[%h]:%p" else word.replace("%", "%%") for word in onward]
        return ["-o", f"ProxyCommand={shlex.join(arguments)}"]
    if target.proxy_command is not None:
        return ["-o", f"ProxyCommand={target.proxy_command.replace('%', '%%')}"]
    return []
