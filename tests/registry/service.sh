#!/bin/bash
# Boots systemd in namespaces of its own, over a copy of this machine's file system that is kept in memory, and has it run
# the unit as a site would. What it finds is written into the folder $4.
#
#   service.sh DRAY CONTRIB SCRATCH OUT
set -euo pipefail
readonly dray=$1 contrib=$2 scratch=$3 out=$4

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
# A machine may have it installed.
rm -rf "$root"/etc/systemd/system/* "$root"/etc/dray "$root"/var/lib/{,private/}dray
install -m 0644 "$contrib/dray.service" "$contrib/dray.socket" "$root/etc/systemd/system/"
# With users, whose lines are there to be uncommented.
install -D -m 0644 "$contrib/dray-tls.conf" "$root/etc/systemd/system/dray.service.d/dray-tls.conf"
sed -i 's/^#\(LoadCredential\|Environment\)/\1/' "$root/etc/systemd/system/dray.service.d/dray-tls.conf"
mkdir -p "$root/etc/dray"
echo DRAY_ALLOW_PUSH=true >"$root/etc/dray/dray.env"
"$dray" tls init --san localhost -o "$root/etc/dray/tls" >/dev/null
htpasswd -B -C 5 -b -c "$root/etc/dray/users" ann secret 2>/dev/null
chmod 600 "$root/etc/dray/users"
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
readonly site=https://localhost:5000
curl() { command curl -s --cacert /etc/dray/tls/ca.crt "$@"; }
push() { curl -o /dev/null -w "$1 %{http_code}\\n" -X POST --data-binary "$2" "${@:4}" "$3$(printf %s "$2" | sha256sum | cut -d' ' -f1)"; }
main() { systemctl show --property MainPID --value dray.service; }
pull() { curl --retry 20 --retry-delay 1 --retry-connrefused "$site/v2/a/blobs/$digest" && echo " pulled $1"; }
curl --retry 20 --retry-delay 1 --retry-connrefused -o /dev/null "$site/readyz"
push 'push of nobody' hello "$site/v2/a/blobs/uploads/?digest=sha256:"
push 'push' hello "$site/v2/a/blobs/uploads/?digest=sha256:" -u ann:secret
ps -o user= -p "$(main)"
grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' "/proc/$(main)/status"
stat -c '%U %a' /var/lib/private/dray
pull 'as pushed'
# What root brings is the service's, too.
dray serve --store /var/lib/dray --allow-push --listen 127.0.0.1:5001 >/dev/null 2>&1 &
curl --retry 20 --retry-delay 1 --retry-connrefused -o /dev/null http://127.0.0.1:5001/readyz
push 'push of root' one 'http://127.0.0.1:5001/v2/b/blobs/uploads/?digest=sha256:'
kill %1
wait %1
find /var/lib/private/dray ! -user dray
push 'push after root' two "$site/v2/b/blobs/uploads/?digest=sha256:" -u ann:secret
# A client that takes 64 MiB slowly, while others come without trying twice.
head -c 64M /dev/zero >/tmp/large
readonly large=$(sha256sum /tmp/large | cut -d' ' -f1)
curl -o /dev/null -X POST --data-binary @/tmp/large -u ann:secret "$site/v2/a/blobs/uploads/?digest=sha256:$large"
curl --limit-rate 20M -o /tmp/slow "$site/v2/a/blobs/sha256:$large" &
readonly slow=$!
while [ ! -s /tmp/slow ]; do sleep 0.1; done
systemctl restart dray.service &
readonly restart=$!
while kill -0 "$restart" 2>/dev/null; do
  curl -o /dev/null -w '%{http_code}\n' "$site/healthz" || echo refused
done | sort -u
wait "$slow" && cmp /tmp/slow /tmp/large && echo 'the slow one has it all'
pull 'after a restart'
kill -9 "$(main)"
pull 'after it was killed'
systemctl stop dray.socket dray.service
systemctl show --property Result --property ExecMainStatus dray.service
TRY
cd "$root"
mkdir old
pivot_root . old
cd /
umount -l old
# As on a machine; systemd leaves that to whoever makes the container. Credentials reach services this way.
mount --make-rshared /
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=try.service
