#!/bin/sh
# Starts a systemd of its own beside that of the host: `boot.sh FOLDER CGROUP PROGRAM`. It sees the host's files and the
# program as /opt/picket-agent, all it writes goes to memory; its processes, mounts, name and cgroups are its own. It ends with the process that called this. Needs root,
# overlay file systems and a hierarchy of cgroups of version 2; ends with 77 where they are missing.
set -eu

folder=$1
cgroup=$2
program=$3

if [ "${4-}" != inside ]; then
    command -v unshare >/dev/null && [ -x /lib/systemd/systemd ] || exit 77
    { mkdir "$cgroup" && echo $$ >"$cgroup/cgroup.procs"; } 2>/dev/null || exit 77
    exec unshare --fork --pid --mount --uts --ipc --cgroup --kill-child --propagation private sh "$0" "$folder" "$cgroup" "$program" inside
fi

root=$folder/root
mkdir "$folder/memory" "$root"
mount -t tmpfs tmpfs "$folder/memory"
mkdir "$folder/memory/upper" "$folder/memory/work"
mount -t overlay -o "lowerdir=/,upperdir=$folder/memory/upper,workdir=$folder/memory/work" overlay "$root" || exit 77
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys" || exit 77
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup" || exit 77
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir -p "$root/opt"
: >"$root/opt/picket-agent"
mount --bind "$program" "$root/opt/picket-agent"

mount -t tmpfs -o mode=755 tmpfs "$root/dev"
device() {
    mknod -m 666 "$root/dev/$1" c "$2" "$3"
}
device null 1 3
device zero 1 5
device full 1 7
device random 1 8
device urandom 1 9
device tty 5 0
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs tmpfs "$root/dev/shm"
: >"$folder/console"
: >"$root/dev/console"
mount --bind "$folder/console" "$root/dev/console"

# Nothing of the host's own services, and nothing that would change its kernel.
units=$root/etc/systemd/system
rm -rf "$units"/*.wants
mkdir -p "$units"
for unit in tmp.mount dev-hugepages.mount dev-mqueue.mount sys-kernel-config.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount sys-fs-fuse-connections.mount systemd-binfmt.service systemd-modules-load.service \
    systemd-random-seed.service systemd-remount-fs.service systemd-sysctl.service systemd-udevd.service \
    systemd-udev-trigger.service systemd-update-utmp.service; do
    ln -sf /dev/null "$units/$unit"
done

cd "$root"
pivot_root . mnt
umount -l /mnt
export container=picket-test
exec /lib/systemd/systemd --system --unit=sysinit.target --log-target=journal --show-status=no
