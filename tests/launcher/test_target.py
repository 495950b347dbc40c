"""What `host:` of a node means: as OpenSSH finds it, Include, Match and aliases among it."""

from __future__ import annotations

import getpass
import shutil
from pathlib import Path
from typing import Any

import pytest

from launcher.config.node import Node
from launcher.errors import HostError
from launcher.ssh.target import NO_SSH, SshTarget, openssh_command, resolve_target

CONFIG = """\
Include {folder}/more/*.conf
Host gamer
  HostName 198.18.0.11
  User steam
  Port 2201
  IdentityFile ~/.ssh/id_gamer
  IdentityFile {folder}/%r-%h
  HostKeyAlias the-gamer
  IdentitiesOnly yes
  IdentityAgent {folder}/agent
Match host *.lab user root
  Port 2202
Host jumping
  ProxyJump me@gate
Host gate
  HostName 10.0.0.1
Host round
  ProxyJump other
Host other
  ProxyJump round
Host tunnelled
  ProxyCommand nc %h %p
Host direct
  ProxyJump none
Host *
  IdentityAgent $OTHER_AGENT
  UserKnownHostsFile {folder}/known {folder}/known2
  GlobalKnownHostsFile none
"""
INCLUDED = "Host pc pc?\n  HostName %h.lab\n  User root\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if shutil.which("ssh") is None:
        pytest.skip("needs OpenSSH's client")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "pcs.conf").write_text(INCLUDED)
    (tmp_path / "config").write_text(CONFIG.replace("{folder}", str(tmp_path)))
    (tmp_path / "key").write_text("a key")
    monkeypatch.setenv("LAUNCH_SSH_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("OTHER_AGENT", "/run/other")
    return tmp_path


def found(host: str, folder: Path, **keys: Any) -> SshTarget:
    return resolve_target(Node(name="one", host=host, **keys), folder / "home.known_hosts")


def test_an_alias(folder: Path) -> None:
    target = found("gamer", folder)
    assert (target.name, target.address, target.port) == ("one", "198.18.0.11", 2201)
    assert (target.user, target.known_host_name, target.cluster) == ("steam", "the-gamer", "home")
    keys = (Path.home() / ".ssh" / "id_gamer", folder / "steam-198.18.0.11")
    assert (target.key_files, target.node_key, target.identities_only) == (keys, None, True)
    assert target.agent_socket == str(folder / "agent")
    assert target.known_hosts == (folder / "known", folder / "known2")
    assert (target.cluster_known_hosts, target.config_note) == (folder / "home.known_hosts", None)


@pytest.mark.parametrize(
    ("host", "keys", "place", "user"),
    [
        ("pc1", {}, "[pc1.lab]:2202", "root"),  # from an included file, then matched
        ("pc1", {"user": "ada"}, "pc1.lab", "ada"),
        ("pc1", {"port": 22}, "pc1.lab", "root"),
        ("198.18.0.99", {}, "198.18.0.99", getpass.getuser()),
        ("2001:2::7", {"port": 2222}, "[2001:2::7]:2222", getpass.getuser()),
        ("PC.Example", {}, "pc.example", getpass.getuser()),
        ("gamer", {"user": "ada", "port": 22}, "the-gamer", "ada"),
    ],
)
def test_the_nodes_own_keys_win(
    folder: Path, host: str, keys: dict[str, Any], place: str, user: str
) -> None:
    target = found(host, folder, **keys)
    assert (target.known_host_name, target.user, target.agent_socket is not None) == (
        place,
        user,
        True,
    )


def test_the_nodes_key_comes_first(folder: Path) -> None:
    target = found("gamer", folder, key=str(folder / "key"))
    assert target.node_key == folder / "key"
    assert target.key_files[0] == folder / "key"
    assert len(target.key_files) == 3


@pytest.mark.parametrize(
    ("variable", "agent"), [("/run/other", "/run/other"), ("", None)]
)  # IdentityAgent $OTHER_AGENT
def test_an_agent_in_a_variable(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, agent: str | None
) -> None:
    monkeypatch.setenv("OTHER_AGENT", variable)
    assert found("anything", folder).agent_socket == agent


@pytest.mark.parametrize(
    ("host", "keys", "said"),
    [
        ("round", {}, "one: its jump host other: its jump hosts go round in circles"),
        ("gamer", {"key": "/none/key"}, "one: its key /none/key is not a file"),
    ],
)
def test_what_is_refused(folder: Path, host: str, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(HostError) as raised:
        found(host, folder, **keys)
    assert raised.value.message.startswith(said)


def test_jump_hosts(folder: Path) -> None:
    target = found("jumping", folder)
    assert target.address == "jumping" and target.jump is not None
    assert (target.jump.name, target.jump.user, target.jump.address) == ("gate", "me", "10.0.0.1")
    assert (target.jump.jump, target.jump.cluster_known_hosts) == (None, target.cluster_known_hosts)
    assert found("direct", folder).jump is None
    assert found("jumping", folder, jump="none").jump is None


def test_a_chain_and_the_first_ones_own_way(folder: Path) -> None:
    target = found("pc1", folder, jump="jumping,ada@inner:2222")
    inner = target.jump
    assert inner is not None and (inner.known_host_name, inner.user) == ("[inner]:2222", "ada")
    first = inner.jump
    assert first is not None and first.address == "jumping"
    assert first.jump is not None and first.jump.address == "10.0.0.1"


def test_a_jump_host_that_is_a_node(folder: Path) -> None:
    gate = Node(name="gate", host="198.18.0.5", user="root", port=2200, key=str(folder / "key"))
    node = Node(name="one", host="pc1", jump="gate")
    target = resolve_target(node, folder / "home.known_hosts", nodes={"gate": gate, "one": node})
    assert target.jump is not None and target.jump.known_host_name == "[198.18.0.5]:2200"
    assert target.jump.node_key == folder / "key"


def test_a_jump_host_with_an_ipv6_address(folder: Path) -> None:
    jump = found("pc1", folder, jump="ada@[2001:2::7]:2222").jump
    assert jump is not None and (jump.name, jump.known_host_name) == (
        "2001:2::7",
        "[2001:2::7]:2222",
    )


def test_a_command_of_ones_own(folder: Path) -> None:
    target = found("tunnelled", folder, port=2222)
    assert (target.jump, target.proxy_command) == (None, "nc tunnelled 2222")
    assert "ProxyCommand=nc tunnelled 2222" in openssh_command(target)
    assert found("tunnelled", folder, jump="gate").proxy_command is None


def test_what_a_cluster_file_says_of_a_node(folder: Path) -> None:
    """Where a host that has moved may be looked for, and whose keys are not its own."""
    one, two = Node(name="one", host="198.18.0.5"), Node(name="two", host="PC2", port=2200)
    nodes = {"one": one, "two": two}
    target = resolve_target(one, folder / "home.known_hosts", nodes=nodes)
    assert (target.node_host, target.other_node_names) == ("198.18.0.5", ("[pc2]:2200",))
    assert found("pc1", folder).node_host is None


def test_batch_mode_asks_nobody(folder: Path) -> None:
    assert found("pc1", folder).may_prompt
    (folder / "config").write_text("BatchMode yes\n")
    assert not found("pc1", folder).may_prompt


def test_openssh_takes_the_same_way(folder: Path) -> None:
    words = openssh_command(found("jumping", folder))
    [option] = [word for word in words if word.startswith("ProxyCommand")]
    assert option.startswith("ProxyCommand=ssh -F ") and option.endswith("10.0.0.1 -W '[%h]:%p'")
    assert "home.known_hosts" in option


def test_a_configuration_that_ssh_refuses(folder: Path) -> None:
    (folder / "config").write_text("Host x\n  Prot 22\n")
    with pytest.raises(HostError, match=r"refuses its configuration: .*line 2: Bad conf") as raised:
        found("pc1", folder)
    assert raised.value.fix == "correct it until this works: ssh pc1"


def test_without_an_ssh_program(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    target = found("gamer", folder)
    assert (target.address, target.port, target.config_note) == ("gamer", 22, NO_SSH)
    assert Path.home() / ".ssh" / "id_ed25519" in target.key_files
    assert found("gamer", folder, user="ada", port=23).known_host_name == "[gamer]:23"
