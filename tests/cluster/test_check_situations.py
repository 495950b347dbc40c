"""Situations that users of real hosts meet, each brought about for real: what they read, and the
exit code. Before the tests of runs, by name: the hosts are bare."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import USER, Lab
from pair import CLUSTER, PairClient
from reach import make_key, running_agent
from situations import CHECK, SITUATIONS, Desk, Seen, Situation, situation

from launcher.raycluster.ports import cluster_ports

PORTS = cluster_ports(CLUSTER)
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


@pytest.fixture(scope="module")
def client(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> PairClient:
    return PairClient(tmp_path_factory.mktemp("situations"), lab.hosts)


@pytest.fixture
def desk(client: PairClient, lab: Lab) -> Iterator[Desk]:
    one, two = lab.hosts
    made = Desk(client, lab, one, two)
    with made.undo:
        yield made


# --- the file


@situation("a shipped file, its address not filled in", "write the address of your own machine",
           code=2, command=("cluster", "check", "rtx4070"))  # fmt: skip
def change_me(desk: Desk) -> None:
    """As it was shipped."""


@situation("a tab instead of spaces", r"pair\.yaml:2:1: .*tab", code=2)
def tab(desk: Desk) -> None:
    desk.write(desk.file, desk.file.read_text().replace("  - ", "\t- ", 1))


@situation("the same key twice", r"pair\.yaml:2:16: key .port. is already in line 2", code=2)
def twice(desk: Desk) -> None:
    desk.write(
        desk.file, desk.file.read_text().replace("{name: one", "{port: 22, port: 22, name: one")
    )


@situation("a file of Windows, lines end in CRLF", "reaches two on every port", code=0)
def crlf(desk: Desk) -> None:
    text = desk.file.read_bytes()
    desk.undo.callback(desk.file.write_bytes, text)
    desk.file.write_bytes(text.replace(b"\n", b"\r\n"))


@situation("a key that does not exist", "did you mean.*port", code=2)
def typo(desk: Desk) -> None:
    desk.node(desk.one, prot="22")


@situation("CUDA and ROCm hosts in one pool", "NCCL and RCCL ranks cannot share a group", code=2)
def vendors(desk: Desk) -> None:
    desk.node(desk.one, accelerator="cuda")
    desk.node(desk.two, accelerator="rocm")


# --- reaching it


@situation("the wrong key", "accepts none of these keys")
def wrong_key(desk: Desk) -> None:
    desk.node(desk.two, key=str(make_key(desk.client.path / "other_key")))
    desk.undo.callback((desk.client.path / "other_key").unlink)


@situation("a key file that is not there", "is not a file")
def no_key(desk: Desk) -> None:
    desk.node(desk.two, key="~/.ssh/id_of_nobody")


@situation("the wrong user", "eve@.* accepts none of these keys")
def wrong_user(desk: Desk) -> None:
    desk.node(desk.two, user="eve")


@situation("a key with a passphrase, no agent, no terminal", "is locked by a passphrase")
def locked(desk: Desk) -> None:
    key = make_key(desk.client.path / "locked_key", "secret")
    desk.undo.callback(key.unlink)
    desk.node(desk.two, key=str(key))


@situation("the same key, held by an agent", "reaches two on every port", code=0)
def agent(desk: Desk) -> None:
    key = make_key(desk.client.path / "agents_key", "secret")
    held = desk.undo.enter_context(running_agent(key, "secret"))
    key.unlink()  # the agent has the key, here is its public part only
    authorized = desk.two.home / ".ssh" / "authorized_keys"
    desk.write(authorized, authorized.read_text() + key.with_suffix(".pub").read_text())
    desk.write(desk.ssh_config, desk.ssh_config.read_text().replace("Agent none", f"Agent {held}"))
    desk.node(desk.two, key=str(key.with_suffix(".pub")))
    desk.undo.callback(key.with_suffix(".pub").unlink)


@situation("a user without a shell", "may log in, but runs no commands: This account is")
def nologin(desk: Desk) -> None:
    passwd = desk.two.disk / "etc" / "passwd"
    text = passwd.read_text()
    desk.write(passwd, text.replace(f"/home/{USER}:/bin/bash", f"/home/{USER}:/usr/sbin/nologin"))


@situation("the wrong port", "port 2200 of .* is closed: no SSH server answers there")
def wrong_port(desk: Desk) -> None:
    desk.node(desk.two, port="2200")


@situation("a port where something else answers", "answers, but not as an SSH server")
def other_server(desk: Desk) -> None:
    server = (
        "import socket; s = socket.create_server(('', 2300))\n"
        "while 1: s.accept()[0].sendall(b'HTTP/1.1 400 Bad Request\\r\\n\\r\\n')"
    )
    desk.two.ssh(f'python3 -c "{server}" > /dev/null 2>&1 < /dev/null & sleep 0.3')
    desk.undo.callback(desk.two.inside, "pkill -f '[c]reate_server'")
    desk.node(desk.two, port="2300")


@situation("a name that nobody knows", "there is no host of the name")
def no_name(desk: Desk) -> None:
    desk.node(desk.two, host="second-box.invalid")


@situation("a host without a running SSH server", "port 22 of .* is closed: no SSH server answers")
def no_server(desk: Desk) -> None:
    desk.off(desk.two)


@situation("a host that is off", "no answer from .* port 22 within 10 s")
def off(desk: Desk) -> None:
    desk.off(desk.two)
    desk.two.unplug()
    desk.undo.callback(desk.two.plug)


@situation("a host that nobody has trusted yet", "host key of .* is not known")
def untrusted(desk: Desk) -> None:
    desk.write(desk.pins, desk.one.known_hosts_line())


@situation("a host key that is another one", "HOST KEY CHANGED")
def changed_key(desk: Desk) -> None:
    other = desk.one.known_hosts_line().split()[1:]
    desk.write(desk.pins, desk.one.known_hosts_line() + " ".join([desk.two.address, *other]) + "\n")


@situation("a host behind another one (jump)", "reaches two on every port", code=0)
def jump(desk: Desk) -> None:
    desk.firewall(desk.two, f"tcp dport 22 ip saddr {desk.lab.gateway} drop")
    desk.node(desk.two, jump="one")


@situation("two hosts behind one address (NAT)", "reaches two on every port", code=0)
def nat(desk: Desk) -> None:
    """The router here is the first host: its port 2202 is the other one's 22."""
    desk.inside(
        desk.one,
        "sysctl -qw net.ipv4.ip_forward=1; nft add table ip nat; "
        "nft add chain ip nat pre '{ type nat hook prerouting priority -100; }'; "
        "nft add chain ip nat post '{ type nat hook postrouting priority 100; }'; "
        f"nft add rule ip nat pre tcp dport 2202 dnat to {desk.two.address}:22; "
        f"nft add rule ip nat post ip daddr {desk.two.address} masquerade",
        "nft delete table ip nat; sysctl -qw net.ipv4.ip_forward=0",
    )
    key = desk.two.known_hosts_line().split(maxsplit=1)[1]
    desk.write(desk.pins, f"{desk.pins.read_text()}[{desk.one.address}]:2202 {key}")
    desk.node(desk.two, host=desk.one.address, port="2202")


@situation("a jump host that forbids it", "its jump host one forbids connections to other hosts")
def no_forwarding(desk: Desk) -> None:
    desk.sshd(desk.one, "AllowTcpForwarding no")
    desk.node(desk.two, jump="one")


@situation("a server that allows one session at a time", "reaches two on every port", code=0)
def sessions(desk: Desk) -> None:
    desk.sshd(desk.two, "MaxSessions 1")


@situation("a login that takes three seconds and greets", "reaches two on every port", code=0)
def slow(desk: Desk) -> None:
    profile = desk.two.home / ".bashrc"
    profile.write_text("echo Welcome to two; sleep 3\n")
    desk.undo.callback(profile.unlink)


# --- what it is like


@situation("100 MB of free disk", "[0-9.]+ MB free in .*: it takes 3 GB")
def disk(desk: Desk) -> None:
    desk.two.small_disk(f"/home/{USER}/.launch", megabytes=100)
    desk.undo.callback((desk.two.home / ".launch").rmdir)
    desk.undo.callback(desk.two.inside, f"umount /home/{USER}/.launch")


@situation("a small /dev/shm", "MB free in /dev/shm, Ray needs 134 MB")
def shm(desk: Desk) -> None:
    desk.inside(desk.two, "mount -t tmpfs -o size=64m tmpfs /dev/shm", "umount /dev/shm")


@situation("no Python on it", "no Python 3.11 or newer .*: one is sent", code=0)
def no_python(desk: Desk) -> None:
    names = " ".join(str(path) for path in Path("/usr/bin").glob("python3*"))
    hide = f"for file in {names}; do [ -L $file ] || mount --bind /dev/null $file; done"
    desk.inside(desk.two, hide, hide.replace("mount --bind /dev/null", "umount"))


@situation("another patch level of Python than here", r"Python 3\.\d+\.\d+", code=0)
def patch_level(desk: Desk) -> None:
    """The hosts' is Debian's, this machine's another one."""


@situation("a clock that is an hour ahead", "clock is 1 h.* ahead of ours")
def clock(desk: Desk) -> None:
    if not FAKETIME.exists():
        pytest.skip("faketime is not installed")
    desk.sshd(desk.two, f"SetEnv LD_PRELOAD={FAKETIME} FAKETIME=+3600s")


@situation("no cron and no systemd of its user's", "nothing can start Ray after a reboot", code=0)
def no_boot(desk: Desk) -> None:
    desk.inside(desk.two, "pkill -x cron", "cron")


@situation("an accelerator that it does not have", "accelerator is cuda, but it has no NVIDIA GPU")
def no_gpu(desk: Desk) -> None:
    desk.node(desk.two, accelerator="cuda", pool="gpu")
    desk.node(desk.one, pool="cpu")


@situation("a stranger's Ray on it", "of another Ray, cluster or torchrun: left alone", code=0)
def stranger(desk: Desk) -> None:
    name = "/opt/conda/lib/python3.11/site-packages/ray/core/src/ray/raylet/raylet"
    desk.two.ssh(f"bash -c 'exec -a {name} sleep 600' > /dev/null 2>&1 < /dev/null &")
    desk.undo.callback(desk.two.inside, "pkill -f '[r]aylet/raylet'")


@situation("a port of Ray's that something holds", r"port \d+ is taken by python3")
def busy_port(desk: Desk) -> None:
    server = f"import socket, time; s = socket.create_server(('', {PORTS.node_manager}))"
    desk.two.ssh(f'python3 -c "{server}; time.sleep(60)" > /dev/null 2>&1 < /dev/null & sleep 0.3')
    desk.undo.callback(desk.two.inside, "pkill -f '[c]reate_server'")


# --- what lies between


@situation("a host name that means the loopback", "which no other host can reach; we name", code=0)
def loopback(desk: Desk) -> None:
    """Debian's installer writes 127.0.1.1 into /etc/hosts."""


@situation("a firewall that drops Ray's port", "cannot reach one on port .*a firewall drops it")
def dropped(desk: Desk) -> None:
    desk.firewall(desk.one, f"tcp dport {PORTS.gcs} drop")


@situation("a firewall that rejects it", "cannot reach one on port .*a firewall in between rejects")
def rejected(desk: Desk) -> None:
    desk.firewall(desk.one, f"tcp dport {PORTS.gcs} reject with tcp reset")


@situation("a firewall that drops ephemeral ports", "cannot reach one on an ephemeral port")
def ephemeral(desk: Desk) -> None:
    desk.firewall(desk.one, "tcp dport 40000-60999 ct state new drop")


@situation("two cards, the wrong one first", "on eth0: the client reaches it there", code=0)
def two_cards(desk: Desk) -> None:
    desk.card(desk.two, "aaa0", "198.19.7.12/24")


@situation("two cards in one network", "packets leave from 198.18.*, not from eth0", code=0)
def one_network(desk: Desk) -> None:
    net = desk.two.address.rpartition(".")[0]
    desk.card(desk.two, "eth1", f"{net}.77/24", plugged=True)
    desk.inside(
        desk.two, f"ip route add {desk.one.address} dev eth1 src {net}.77",
        f"ip route del {desk.one.address} dev eth1",
    )  # fmt: skip


@situation("docker0 and tailscale0 beside the card", "on eth0: the client reaches it", code=0)
def virtual(desk: Desk) -> None:
    desk.card(desk.two, "docker0", "172.17.0.1/16")
    desk.card(desk.one, "tailscale0", "100.100.7.11/32")


@situation("Wi-Fi beside Ethernet, its address in the file", r"on wlan0 \(Wi-Fi\)", code=0)
def wifi(desk: Desk) -> None:
    net = desk.two.address.rpartition(".")[0]
    desk.card(desk.two, "wlan0", f"{net}.78/24", plugged=True)
    known = desk.two.known_hosts_line().replace(desk.two.address, f"{net}.78")
    desk.write(desk.pins, desk.pins.read_text() + known)
    server = desk.two.disk / "etc" / "sshd_config"
    desk.two.inside(f"/usr/sbin/sshd -f {server} -o ListenAddress={net}.78")
    desk.undo.callback(desk.two.inside, f"pkill -f 'ListenAddress={net}.[7]8'")
    desk.node(desk.two, host=f"{net}.78")


@situation("network.interface names no card of theirs", "it has no interface eno1")
def no_interface(desk: Desk) -> None:
    desk.write(desk.file, f"{desk.file.read_text()}network: {{interface: eno1}}\n")


@situation("the same host twice in the file", "this machine is node .one. already", code=2)
def same_host(desk: Desk) -> None:
    desk.node(desk.two, host=desk.one.address)


@situation("a link of 10 Mbit/s", "0.01 Gbit/s", code=0)
def slow_link(desk: Desk) -> None:
    desk.two.limit_link(10)
    desk.undo.callback(desk.two.unlimit_link)


@pytest.mark.parametrize("what", SITUATIONS, ids=lambda each: each.make.__name__)
def test_situation(what: Situation, desk: Desk, seen: Seen) -> None:
    what.make(desk)
    output = seen.run(desk, what)
    assert re.search(what.says, output), output
    if what.code:
        assert "fix:" in output


def test_nothing_is_left_on_the_hosts(lab: Lab, client: PairClient) -> None:
    """A check changes nothing, whatever it meets."""
    assert not [host.name for host in lab.hosts if (host.home / ".launch").exists()]
    assert client.launch(*CHECK).returncode == 0
