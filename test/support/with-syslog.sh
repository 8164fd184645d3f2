#!/usr/bin/env bash
# Runs a bash line where there is a syslog: with /dev, /run and /var/log of its own, the machine's stay as they are.
#   unshare --mount bash with-syslog.sh journald|rsyslog DIRECTORY LINE
set -euo pipefail
work=$2
mkdir "$work/log" "$work/dev"
mount -t tmpfs none /run
mkdir -p -m 1777 /run/lock
mkdir -p /run/systemd/journal
mount --bind "$work/log" /var/log
mount -t tmpfs none "$work/dev"
for name in null zero full random urandom tty; do
  touch "$work/dev/$name"
  mount --bind "/dev/$name" "$work/dev/$name"
done
ln -s /proc/self/fd "$work/dev/fd"
mount --move "$work/dev" /dev

if [ "$1" = journald ]; then
  ln -s /run/systemd/journal/dev-log /dev/log
  /lib/systemd/systemd-journald 2>/dev/null &
else
  printf 'module(load="imuxsock")\n*.* /var/log/syslog\n' > "$work/rsyslog.conf"
  rsyslogd -n -f "$work/rsyslog.conf" -i "$work/rsyslogd.pid" &
fi
daemon=$!
trap 'kill $daemon && wait $daemon || true' EXIT
for _ in $(seq 100); do
  [ -S /dev/log ] && break
  sleep 0.1
done
bash -c "$3"
