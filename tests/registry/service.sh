#!/bin/bash
# Boots systemd in namespaces of its own, over a copy of this machine's file system that is kept in memory, and has it run
# the unit as a site would. What it finds is written into the folder $4.
#
#   service.sh DRAY UNIT SCRATCH OUT
set -euo pipefail
readonly dray=$1 unit=$2 scratch=$3 out=$4

mount --make-rprivate /
mount -t tmpfs tmpfs "$scratch"
mkdir "$scratch"/{changes,work,root}
readonly root=$scratch/root
mount -t overlay -o "lowerdir=/,upperdir=$scratch/changes,workdir=$scratch/work" overlay "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount --rbind /dev "$root/dev"
mkdir "$root/out"
mount --bind "$out" "$root/out"
ip link set lo up

install -D "$dray" "$root/usr/local/bin/dray"
rm -rf "$root"/etc/systemd/system/*
install -m 0644 "$unit" "$root/etc/systemd/system/dray.service"
mkdir -p "$root/etc/dray"
echo DRAY_ALLOW_PUSH=true DRAY_LISTEN=127.0.0.1:5000 | tr ' ' '\n' >"$root/etc/dray/dray.env"
cat >"$root/etc/systemd/system/try.service" <<'UNIT'
[Unit]
Wants=dray.service
After=dray.service
[Service]
Type=oneshot
ExecStart=/bin/bash /out/try.sh
StandardOutput=file:/out/log
StandardError=inherit
ExecStopPost=/bin/systemctl exit
UNIT
cat >"$out/try.sh" <<'TRY'
readonly digest=sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
readonly site=http://127.0.0.1:5000
main() { systemctl show --property MainPID --value dray.service; }
pull() { curl -s --retry 20 --retry-delay 1 --retry-connrefused "$site/v2/a/blobs/$digest" && echo " pulled $1"; }
curl -s --retry 20 --retry-delay 1 --retry-connrefused -o /dev/null "$site/readyz"
curl -s -o /dev/null -w 'push %{http_code}\n' -X POST --data-binary hello "$site/v2/a/blobs/uploads/?digest=$digest"
ps -o user= -p "$(main)"
grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' "/proc/$(main)/status"
stat -c '%U %a' /var/lib/private/dray
pull 'as pushed'
systemctl restart dray.service
pull 'after a restart'
kill -9 "$(main)"
pull 'after it was killed'
systemctl stop dray.service
systemctl show --property Result --property ExecMainStatus dray.service
TRY
cd "$root"
mkdir old
pivot_root . old
cd /
umount -l old
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=try.service
