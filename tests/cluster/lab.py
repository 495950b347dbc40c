"""Real machines for tests, on this one: each with its own network, processes, home and sshd.

A host is a process tree in namespaces of its own (network, mounts, host name, processes, IPC),
pinned to one core and joined to the others by a bridge; none has a way out. Killing the tree is a
power cut, taking its cable down a pulled one. Its user is an ordinary one. Needs root on Linux and
Debian's openssh-server and iproute2.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from launcher.agent.processes import die_with_parent

USER, USER_ID = "ada", 2001
PASSWORD = "hunter2"  # of the user, for an sshd that is told to ask for it
SHADOW = (
    "$6$launchlab$yPIyKUEWpjgrl8K."
    "ZRk2PN5nCMLJLB7E/duuABNLOP590GzjkV83EMLSAHv8YcOiv06/n/JU4LnJSrQwiK3qA."
)
BOOT_SECONDS = 20.0
SSHD = "/usr/sbin/sshd"
INIT = Path(__file__).with_name("init.sh")

SSHD_CONFIG = """\
ListenAddress {address}
Port {port}
HostKey {disk}/etc/ssh_host_ed25519_key
AuthorizedKeysFile .ssh/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PrintMotd no
Subsystem sftp internal-sftp
PidFile none
"""

# If tests run on fewer instructions than the CPU has (tests/instruction_sets.py), so do
# their hosts: sshd hands these variables to its sessions, cron and systemd to what boot starts.
INSTRUCTION_CAPS = ("ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")


class Lab:
    """A bridge with hosts on it. Addresses are 198.18.N.x, of the range set aside for benchmarks.

    `folder` holds the hosts' disks and the client's key; give it a path that the hosts do not hide
    (they have a /tmp, /root and /home of their own).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts: list[Host] = []
        folder.mkdir(parents=True, exist_ok=True)
        self.key = folder / "id_ed25519"
        if not self.key.exists():
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key))
        self.number = self._make_bridge()

    @property
    def bridge(self) -> str:
        return f"lab{self.number}"

    @property
    def gateway(self) -> str:
        """This machine's own address on the bridge: the client's."""
        return f"198.18.{self.number}.1"

    def add(self, name: str, *, core: int = 0, port: int = 22) -> Host:
        host = Host(self, name, number=len(self.hosts) + 11, core=core, port=port)
        self.hosts.append(host)
        host.install()
        host.boot()
        return host

    def known_hosts(self) -> str:
        """Lines in OpenSSH's format for every host."""
        return "".join(host.known_hosts_line() for host in self.hosts)

    def close(self) -> None:
        for host in self.hosts:
            host.cut_power()
            _run("ip", "netns", "del", host.namespace, check=False)
            groups = f"/sys/fs/cgroup/systemd/{self.folder.name}-{host.name}"  # of its systemd
            for group in (groups, str(host._cpu_group)):
                _run("find", group, "-depth", "-type", "d", "-delete", check=False)
        _run("ip", "link", "del", self.bridge, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_bridge(self) -> int:
        """The first free number: several test runs may share a machine."""
        for number in range(1, 255):
            made = _run("ip", "link", "add", f"lab{number}", "type", "bridge", check=False)
            if made.returncode == 0:
                _run("ip", "addr", "add", f"198.18.{number}.1/24", "dev", f"lab{number}")
                _run("ip", "link", "set", f"lab{number}", "up")
                return number
        raise RuntimeError("no bridge can be made: are you root?")


class Host:
    """One machine of a lab."""

    def __init__(self, lab: Lab, name: str, *, number: int, core: int, port: int) -> None:
        self.lab = lab
        self.name = name
        self.core = core
        self.port = port
        self.address = f"198.18.{lab.number}.{number}"
        self.namespace = f"{lab.bridge}-{name}"
        self.cable = f"v{lab.number}-{number}"  # the bridge's end; the host's is eth0
        self.disk = lab.folder / name
        self.home = self.disk / "home" / USER
        self._process: subprocess.Popen[bytes] | None = None

    def install(self) -> None:
        """A disk with a user who may log in with the lab's key, and a network."""
        for place in ("tmp", "root", "home", "etc", "crontabs/crontabs"):
            (self.disk / place).mkdir(parents=True)
        shutil.chown(self.disk / "crontabs" / "crontabs", group="crontab")
        (self.disk / "crontabs" / "crontabs").chmod(0o1730)
        (self.disk / "tmp").chmod(0o1777)
        etc = self.disk / "etc"
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n")
        for file, line in (
            ("passwd", f"{USER}:x:{USER_ID}:{USER_ID}::/home/{USER}:/bin/bash\n"),
            ("group", f"{USER}:x:{USER_ID}:\n"),
            ("shadow", f"{USER}:{SHADOW}:19000:0:99999:7:::\n"),
        ):
            (etc / file).write_text(Path("/etc", file).read_text() + line)
        (etc / "shadow").chmod(0o640)
        caps = [f"{name}={os.environ[name]}" for name in INSTRUCTION_CAPS if name in os.environ]
        (etc / "caps").write_text("".join(f"{cap}\n" for cap in caps))
        environment = Path("/etc/environment")  # not every machine has one
        text = environment.read_text() if environment.exists() else ""
        (etc / "environment").write_text(text + (etc / "caps").read_text())
        self.new_host_key()
        (etc / "sshd_config").write_text(
            SSHD_CONFIG.format(address=self.address, port=self.port, disk=self.disk)
            + (f"SetEnv {' '.join(caps)}\n" if caps else "")  # sshd reads the first one only
        )
        ssh = self.home / ".ssh"
        ssh.mkdir(parents=True, mode=0o700)
        shutil.copy(self.lab.key.with_suffix(".pub"), ssh / "authorized_keys")
        for path in (self.home, ssh, ssh / "authorized_keys"):
            os.chown(path, USER_ID, USER_ID)
        # The bridge is new: what bears its number is left from a test run that was killed.
        _run("ip", "link", "del", self.cable, check=False)
        _run("ip", "netns", "del", self.namespace, check=False)
        _run("ip", "netns", "add", self.namespace)
        _run(
            "ip", "link", "add", self.cable, "type", "veth",
            "peer", "name", "eth0", "netns", self.namespace,
        )  # fmt: skip
        _run("ip", "link", "set", self.cable, "master", self.lab.bridge, "up")
        inside = ("ip", "-n", self.namespace)
        _run(*inside, "addr", "add", f"{self.address}/24", "dev", "eth0")
        _run(*inside, "link", "set", "eth0", "up")
        _run(*inside, "link", "set", "lo", "up")

    def new_host_key(self) -> None:
        key = self.disk / "etc" / "ssh_host_ed25519_key"
        key.unlink(missing_ok=True)
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(key))

    def known_hosts_line(self, port: int | None = None) -> str:
        """`port`: another one than its own."""
        port = port or self.port
        kind, key, _ = (self.disk / "etc" / "ssh_host_ed25519_key.pub").read_text().split()
        place = self.address if port == 22 else f"[{self.address}]:{port}"
        return f"{place} {kind} {key}\n"

    def linger(self) -> None:
        """From the next boot on, its user's systemd runs without a login, as with
        `loginctl enable-linger`."""
        (self.disk / "etc" / "linger").touch()

    def boot(self) -> None:
        """Returns when sshd answers. cron runs before."""
        with (self.disk / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["taskset", "-c", str(self.core), "ip", "netns", "exec", self.namespace,
                 "unshare", "--mount", "--uts", "--pid", "--ipc", "--fork", "--kill-child=KILL",
                 "sh", str(INIT), str(self.disk), self.name,
                 SSHD, "-D", "-e", "-f", str(self.disk / "etc" / "sshd_config")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=die_with_parent,  # a test run that is killed leaves no machines behind
            )  # fmt: skip
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            if self._answers():
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not boot: {self.disk / 'sshd.log'}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.address, self.port), timeout=1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def cut_power(self) -> None:
        """Every process of the host is gone at once."""
        if self._process is not None:
            first = Path("/proc", self._first_process())
            self._process.kill()  # unshare's --kill-child takes pid 1 inside with it, and that all
            self._process.wait()
            self._process = None
            while first.exists():  # it goes behind all others
                time.sleep(0.01)

    def is_on(self) -> bool:
        return self._process is not None

    def power_cycle(self) -> None:
        self.cut_power()
        self.boot()

    def unplug(self) -> None:
        _run("ip", "link", "set", self.cable, "down")

    def plug(self) -> None:
        _run("ip", "link", "set", self.cable, "up")

    def limit_link(self, megabits_per_second: int) -> None:
        """Both ways."""
        shape = (
            "root", "tbf", "rate", f"{megabits_per_second}mbit",
            "burst", "64kb", "latency", "50ms",
        )  # fmt: skip
        _run("tc", "qdisc", "replace", "dev", self.cable, *shape)
        _run("tc", "-n", self.namespace, "qdisc", "replace", "dev", "eth0", *shape)

    def unlimit_link(self) -> None:
        _run("tc", "qdisc", "del", "dev", self.cable, "root")
        _run("tc", "-n", self.namespace, "qdisc", "del", "dev", "eth0", "root")

    def limit_cpu(self, part: float) -> None:
        """So much of its core's time, from now on; needs version 1 of control groups."""
        group = self._cpu_group
        group.mkdir(exist_ok=True)
        (group / "cpu.cfs_period_us").write_text("10000")
        (group / "cpu.cfs_quota_us").write_text(str(round(10_000 * part)))
        for pid, _ in self._all():
            with contextlib.suppress(OSError):  # it has just ended
                (group / "cgroup.procs").write_text(str(pid))

    def unlimit_cpu(self) -> None:
        (self._cpu_group / "cpu.cfs_quota_us").write_text("-1")

    @property
    def _cpu_group(self) -> Path:
        return Path("/sys/fs/cgroup/cpu", f"{self.lab.folder.name}-{self.name}")

    def firewall(self, rule: str) -> None:
        """One nftables rule for what comes in, such as `tcp dport 20000 drop`."""
        nft = ("ip", "netns", "exec", self.namespace, "nft")
        _run(*nft, "add table inet lab")
        _run(*nft, "add chain inet lab in { type filter hook input priority 0; }")
        _run(*nft, f"add rule inet lab in {rule}")

    def no_firewall(self) -> None:
        _run("ip", "netns", "exec", self.namespace, "nft", "delete table inet lab", check=False)

    def add_ipv6(self) -> str:
        """Gives it an address of 2001:2::/48, set aside for benchmarks too, and returns it."""
        network = f"2001:2:0:{self.lab.number}"
        _run("ip", "addr", "replace", f"{network}::1/64", "dev", self.lab.bridge, "nodad")
        address = f"{network}::{self.address.rpartition('.')[2]}"
        place = (f"{address}/64", "dev", "eth0", "nodad")
        _run("ip", "-n", self.namespace, "addr", "replace", *place)
        return address

    @contextlib.contextmanager
    def other_sshd(self, port: int, *options: str) -> Iterator[None]:
        """A second sshd while the block lasts. `options`: Keyword=value, which win over its
        file's."""
        pid = self.disk / f"sshd-{port}.pid"
        words = " ".join(f"-o '{option}'" for option in (*options, f"PidFile={pid}"))
        log = self.disk / f"sshd-{port}.log"
        self.inside(f"{SSHD} -p {port} {words} -E {log} -f {self.disk}/etc/sshd_config")
        try:
            yield
        finally:
            self.inside(f"kill $(cat {pid})")

    def small_disk(self, path: str, megabytes: int) -> None:
        """A disk of its own at a folder of the host, the user's, until it is unmounted or the
        power is cut."""
        options = f"size={megabytes}m,uid={USER_ID},gid={USER_ID}"
        self.inside(f"mkdir -p {path} && mount -t tmpfs -o {options} tmpfs {path}")

    @property
    def root(self) -> Path:
        """Its files as the host itself sees them, mounted disks too, from this machine."""
        return Path("/proc", self._first_process(), "root")

    def inside(self, command: str) -> str:
        """As root on the host's console."""
        inside = (
            "nsenter",
            "--target",
            self._first_process(),
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
        )
        return _run(*inside, "sh", "-c", command).stdout

    def _first_process(self) -> str:
        """What is process 1 in there."""
        assert self._process is not None
        pid = self._process.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]

    def ssh(self, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """As a user with OpenSSH would, with the lab's key."""
        return _run(*self._ssh_words(command), check=check)

    def start_ssh(self, command: str) -> subprocess.Popen[str]:
        """The same, not waited for."""
        return subprocess.Popen(self._ssh_words(command), stdout=subprocess.PIPE, text=True)

    def _ssh_words(self, command: str) -> list[str]:
        known = self.lab.folder / "known_hosts"
        known.write_text(self.lab.known_hosts())
        return [
            "ssh", "-F", "none", "-i", str(self.lab.key), "-p", str(self.port),
            "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={known}",
            f"{USER}@{self.address}", command,
        ]  # fmt: skip

    def processes(self) -> list[str]:
        """Command lines of all that runs on the host, its sshd and cron left out."""
        left_out = ("sshd", SSHD, "unshare", "sh /", "cron")
        return sorted(name for _, name in self._all() if not name.startswith(left_out))

    def pids(self, program: str) -> list[int]:
        """Ids, on this machine, of the host's processes that have it in the first word of their
        command line."""
        return sorted(pid for pid, name in self._all() if program in name.split()[0])

    def _all(self) -> Iterator[tuple[int, str]]:
        """Id on this machine and command line."""
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(path / "ns" / "net") == self._net():
                    command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                    if command:  # zombies have none
                        yield int(path.name), command

    def _net(self) -> str:
        return f"net:[{os.stat(f'/run/netns/{self.namespace}').st_ino}]"


def _run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(command, capture_output=True, text=True)
    if check and result.returncode:
        raise RuntimeError(f"{' '.join(command)}: {result.stderr.strip() or result.returncode}")
    return result
