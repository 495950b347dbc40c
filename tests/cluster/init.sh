#!/bin/sh
# A test host boots, inside its own namespaces. $1: its disk, $2: its name, $3...: its sshd
set -eu
disk=$1
hostname "$2"
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
for file in hosts passwd group shadow; do
  mount --bind "$disk/etc/$file" "/etc/$file"
done
exec "$@"
