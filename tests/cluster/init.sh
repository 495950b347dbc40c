#!/bin/sh
# A test host boots, inside its own namespaces. $1: its disk, $2: its name, $3...: its sshd
set -eu
disk=$1
name=$2
hostname "$name"
shift 2
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
for place in tmp root home; do
  mount --bind "$disk/$place" "/$place"
done
mount --bind "$disk/crontabs" /var/spool/cron
for file in hosts passwd group shadow environment; do
  [ -e "/etc/$file" ] || : > "/etc/$file"  # not every machine has an environment
  mount --bind "$disk/etc/$file" "/etc/$file"
done
cron
if [ -e "$disk/etc/linger" ]; then
  # What logind does for a user who lingers; the kernel's control groups are of version 1 here.
  mount -t tmpfs tmpfs /var/lib/systemd
  mkdir -p /var/lib/systemd/linger /run/systemd/system /run/user/2001
  touch /var/lib/systemd/linger/ada
  chown ada:ada /run/user/2001
  mount -t tmpfs tmpfs /sys/fs/cgroup
  mkdir /sys/fs/cgroup/systemd
  mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
  group=/sys/fs/cgroup/systemd/$(basename "$(dirname "$disk")")-$name
  mkdir -p "$group"
  (
    sh -c 'echo $PPID' > "$group/cgroup.procs"
    chown -R ada "$group"
    exec setsid setpriv --reuid ada --regid ada --init-groups env -i HOME=/home/ada PATH="$PATH" \
      $(cat "$disk/etc/caps") XDG_RUNTIME_DIR=/run/user/2001 \
      /lib/systemd/systemd --user > /run/systemd.log 2>&1
  ) &
fi
exec "$@"
