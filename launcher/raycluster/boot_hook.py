"""How a supervisor is started: now, and whenever its host boots, without a client.

A service of the user's own systemd where that runs without a login (linger), else a line of the
user's crontab, else nothing: such a host rejoins at the next client command. `down` takes it away.
"""

from __future__ import annotations

from launcher.raycluster.spec import cluster_folder

SYSTEMD, CRONTAB, NONE = "systemd", "crontab", "none"
REMOVED_PREFIXES = ("systemd unit ", "crontab line ")  # how the lines that `remove` prints begin
# Of the login's environment: what neither systemd nor cron has, and downloads or drivers may need.
KEPT_VARIABLES = (
    "PATH|LD_LIBRARY_PATH|HTTPS?_PROXY|ALL_PROXY|NO_PROXY|SSL_CERT_FILE|SSL_CERT_DIR"
    "|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
)

# No login tells where the user's systemd listens; cron starts in the home folder, and so does ssh.
# Two clients that change a crontab at once would lose one's lines: the home folder is their lock.
_PREAMBLE = """\
export LC_ALL=C XDG_RUNTIME_DIR=/run/user/$(id -u)
units=.config/systemd/user unit={unit} line='{line}'
exec 9<"$HOME"; flock 9
"""

# What cannot be read is not written anew. The dot keeps empty lines at the end from being cut off;
# -a, because grep drops lines that are not of its character set.
_BY_CRONTAB = """\
by_crontab() {
  case $(cat /proc/[0-9]*/comm | grep -xE 'cron|crond|fcron') in "") return 1 ;; esac
  if listed=$(crontab -l && echo .); then listed=${listed%.}
  else
    crontab -l 2>&1 | grep -qE 'no crontab|No such file' || return 1
    listed=
  fi
  case $listed in ''|*"
") ;; *) listed="$listed
" ;; esac
  printf '%s%s\\n' "$listed" "$line" | crontab -
}
"""
_NO_CRONTAB = """\
if listed=$(crontab -l && echo .) && printf %s "${listed%.}" | grep -aqxF "$line"; then
  echo "crontab line $line" >&3
  if kept=$(printf %s "${listed%.}" | grep -avxF "$line" && echo .)
  then printf %s "${kept%.}" | crontab -
  else crontab -r; fi
fi
"""

# What an `up` finds missing and makes is noted, so that it can be undone.
_INSTALL = """\
made() {{ mkdir -p .launch/boot; echo "$1" >> .launch/boot/made; }}
lingers() {{
  [ ! -e "/var/lib/systemd/linger/$(id -un)" ] || return 0
  loginctl enable-linger && made linger
}}
by_systemd() {{
  [ -S "$XDG_RUNTIME_DIR/systemd/private" ] && lingers || return 1
  for folder in .config .config/systemd $units $units/default.target.wants; do
    [ -d $folder ] || {{ mkdir $folder && made $folder; }}
  done
  cat > $units/$unit << 'END'
[Unit]
Description=Ray of launch's cluster {cluster}
ConditionPathExists=%h/{start}
[Service]
ExecStart=/bin/sh %h/{start}
Restart=on-failure
RestartSec=5
KillMode=mixed
OOMPolicy=continue
TimeoutStopSec=10
[Install]
WantedBy=default.target
END
  systemctl --user daemon-reload && systemctl --user enable $unit && systemctl --user start $unit
}}
"""

_REMOVE = f"""\
if [ -e $units/$unit ]; then
  echo "systemd unit $unit" >&3
  systemctl --user disable $unit
  rm -f $units/$unit $units/default.target.wants/$unit
  systemctl --user daemon-reload
  systemctl --user reset-failed $unit
fi
{_NO_CRONTAB}if [ -e .launch/boot/made ] && ! ls $units | grep -q '^launch-.*\\.service$'; then
  tac .launch/boot/made | while read -r made; do
    case $made in linger) loginctl disable-linger ;; *) rmdir "$made" ;; esac
  done
  rm -r .launch/boot
fi
"""


def start_file(cluster: str) -> str:
    """The script that becomes the supervisor; where it is missing, nothing begins at boot."""
    return f"{cluster_folder(cluster)}/start.sh"


def install_and_start(cluster: str) -> str:
    """A shell command that starts the supervisor from its file and prints SYSTEMD, CRONTAB or NONE.

    By systemd it is a service of its own, which a logout does not end (KillUserProcesses).
    """
    start = start_file(cluster)
    install = _INSTALL.format(cluster=cluster, start=start) + _BY_CRONTAB
    folder = cluster_folder(cluster)
    return (
        f"{_preamble(cluster)}{install}"
        f"flock -n {folder}/lock rm -f {folder}/state.json\n"  # of one that lost its power
        f"(umask 077; export -p | grep -iE '^export ({KEPT_VARIABLES})=' > {folder}/login.sh)\n"
        f"{{\n{_REMOVE}}} > /dev/null 2>&1 3>&1\n"  # of an earlier `up`
        f"if by_systemd > /dev/null 2>&1; then echo {SYSTEMD}; exit 0; fi\n"
        f"{{\n{_REMOVE}}} > /dev/null 2>&1 3>&1\n"
        f"by_crontab > /dev/null 2>&1 && echo {CRONTAB} || echo {NONE}\n"
        f"setsid sh {start} > /dev/null 2>&1 9<&- &"
    )


def remove(cluster: str) -> str:
    """A shell command that leaves the user's services and crontab as they were found.

    It prints a line for each that it removes: `systemd unit NAME` or `crontab line LINE`.
    """
    return f"(\n{_preamble(cluster)}{_REMOVE}) 3>&1 > /dev/null 2>&1\n"


def _preamble(cluster: str) -> str:
    start = start_file(cluster)
    line = f"@reboot [ ! -e {start} ] || sh {start}"
    return _PREAMBLE.format(unit=f"launch-{cluster}.service", line=line)
