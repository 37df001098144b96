"""What the lab's image is made of: packages, files and set-up script of a dom0, and their hash.

Whatever changes the image stands in this file and is covered by `Recipe.digest`; image.py only
carries it out. An image is used again as long as its digest is the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

READY_LINE = "xenlab: dom0 is ready"
FAILED_LINE = "xenlab: dom0 has no working toolstack"
CARRIER_IN_DOM0 = "/dev/vdb"
VENV = "/opt/venv"
GUEST_DIR = "/srv/guest"
CONSOLE_LOG_DIR = "/var/log/xen/console"

# Packages of dom0. python3-cffi, -setuptools, -wheel, gcc, pkg-config and libxen-dev build the
# project's compiled module there.
_PACKAGES = (
    "systemd-sysv",
    "udev",
    "kmod",
    "iproute2",
    "procps",
    "openssh-server",
    "linux-image-amd64",
    "initramfs-tools",
    "e2fsprogs",
    "busybox-static",
    "cpio",
    "xz-utils",
    "qemu-system-xen",
    "qemu-utils",
    "xen-utils-common",
    "bridge-utils",
    "python3",
    "python3-venv",
    "python3-cffi",
    "python3-setuptools",
    "python3-wheel",
    "python3-dev",
    "gcc",
    "libc6-dev",
    "libxen-dev",
    "pkg-config",
    "strace",
    "socat",
    "netcat-openbsd",
)

# dom0 has no network: what pip must bring is in the image. Pure Python, all of it.
_WHEELS = (
    "transitions==0.9.3",
    "six==1.17.0",
    "pytest==8.4.2",
    "iniconfig==2.1.0",
    "pluggy==1.6.0",
    "packaging==25.0",
    "pygments==2.19.2",
)

# Of some 4,000 kernel modules these are kept (a third of the image otherwise).
_KERNEL_MODULES = (
    "arch/x86/crypto",
    "crypto",
    "drivers/block",
    "drivers/net/ifb*",
    "drivers/net/net_failover*",
    "drivers/net/tun*",
    "drivers/net/virtio_net*",
    "drivers/net/xen-netback",
    "drivers/net/xen-netfront*",
    "drivers/virtio",
    "drivers/xen",
    "fs/autofs",
    "fs/ext4",
    "fs/jbd2",
    "fs/mbcache*",
    "lib",
    "net/802",
    "net/bridge/bridge*",
    "net/core",
    "net/llc",
    "net/sched/act_mirred*",
    "net/sched/cls_u32*",
    "net/sched/sch_ingress*",
    "net/sched/sch_plug*",
)
_EXCLUDED_PATHS = (
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "*/lib/modules/*/kernel/*",
)

# Unpacked before the packages are configured: the initramfs is made once, and small.
_EARLY_FILES = {
    "/etc/initramfs-tools/conf.d/xenlab": "MODULES=list\n",
    "/usr/share/initramfs-tools/modules.d/xenlab": ("virtio_pci\nvirtio_blk\nvirtio_net\next4\n"),
}

_FILES = {
    "/etc/hostname": "dom0\n",
    "/etc/hosts": "127.0.0.1 localhost dom0\n",
    "/etc/fstab": "/dev/vda / ext4 noatime 0 0\n",
    "/etc/modules-load.d/xenlab.conf": (
        "xen-evtchn\nxen-gntdev\nxen-gntalloc\nxen-privcmd\nxenfs\n"
        "xen-netback\nxen-blkback\ntun\nloop\n"
    ),
    "/etc/default/xen": f'XENCONSOLED_ARGS="--log=guest --log-dir={CONSOLE_LOG_DIR}"\n',
    "/etc/ssh/sshd_config.d/xenlab.conf": (
        "UseDNS no\nUsePAM no\nPermitRootLogin prohibit-password\nMaxSessions 100\n"
        f"SetEnv PATH={VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
    ),
    # From one host of two to the other, which has the same keys.
    "/root/.ssh/config": "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n",
    "/etc/systemd/system/xenlab-network.service": """\
[Unit]
Description=The lab's network: to the host outside (10.0.2.15) and to the guests (xenbr0)
DefaultDependencies=no
After=systemd-modules-load.service
Before=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/sbin/ip link set lo up
ExecStart=/sbin/ip address add 10.0.2.15/24 dev eth0
ExecStart=/sbin/ip link set eth0 up
ExecStart=/sbin/ip link add xenbr0 type bridge
ExecStart=/sbin/ip address add 10.1.0.1/24 dev xenbr0
ExecStart=/sbin/ip link set xenbr0 up

[Install]
WantedBy=sysinit.target
""",
    "/etc/systemd/system/xenlab-ready.service": f"""\
[Unit]
Description=Say on the console that the lab is ready
After=xen.service ssh.service xenlab-network.service

[Service]
Type=oneshot
RemainAfterExit=yes
StandardOutput=tty
TTYPath=/dev/hvc0
ExecStart=/bin/sh -c 'if xl list; then echo "{READY_LINE}"; else echo "{FAILED_LINE}"; fi'

[Install]
WantedBy=multi-user.target
""",
    # The Linux guest: its ticks show that it runs, its digest that its memory is what it was.
    f"{GUEST_DIR}/root/init": """\
#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in $(cat /lib/modules/order); do insmod "/lib/modules/$module.ko"; done
if [ -e /sys/class/net/eth0 ]; then
    ip address add 10.1.0.2/24 dev eth0
    ip link set eth0 up
fi
disk=
if ls -d /sys/bus/xen/devices/vbd-* >/dev/null 2>&1; then
    until [ -b /dev/xvda ]; do sleep 0.2; done
    mount -t ext4 -o errors=panic /dev/xvda /mnt && disk=yes
fi
dd if=/dev/urandom of=/data bs=1M count=2 2>/dev/null
n=0
while :; do
    n=$((n + 1))
    set -- $(md5sum /data)
    if [ "$disk" ]; then
        echo "tick $n $1" >>/mnt/ticks && sync || echo "disk: write failed"
    fi
    echo "tick $n $1"
    sleep 1
done
""",
    # The kernel runs these when xl asks it to shut down or to reboot.
    f"{GUEST_DIR}/root/sbin/poweroff": "#!/bin/sh\nexec busybox poweroff -f\n",
    f"{GUEST_DIR}/root/sbin/reboot": "#!/bin/sh\nexec busybox reboot -f\n",
}
_EXECUTABLE = frozenset(path for path in _FILES if path.startswith(f"{GUEST_DIR}/root/"))

# Runs in the new root when all packages are configured and the files above are in place.
_SET_UP = f"""\
set -eu
systemctl --quiet enable xenlab-network.service xenlab-ready.service ssh.service
systemctl --quiet set-default multi-user.target
systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer getty@tty1.service \
    serial-getty@hvc0.service serial-getty@ttyS0.service systemd-logind.service \
    systemd-binfmt.service systemd-timesyncd.service xendomains.service
mkdir -p {CONSOLE_LOG_DIR}
chmod 700 /root/.ssh
chmod 600 /root/.ssh/id_ed25519
python3 -m venv --system-site-packages {VENV}
{VENV}/bin/pip --quiet install --no-index --no-deps /root/wheels/*.whl
rm -r /root/wheels

# What stands beside it, vmlinux, is unpacked from this kernel by image.py.
cd {GUEST_DIR}
mkdir -p root/bin root/dev root/lib/modules root/mnt root/proc root/sys
cp /bin/busybox root/bin/
for applet in cat dd dmesg free insmod ip ls md5sum mount ping ps sh sleep sync; do
    ln -s busybox root/bin/$applet
done
# In an order in which each finds what it needs: insmod knows no dependencies.
for module in crc16 crc32c_generic jbd2 mbcache ext4 xen-blkfront xen-netfront; do
    found=$(find /lib/modules -name "$module.ko*")
    [ -z "$found" ] && continue
    cp "$found" root/lib/modules/
    echo "$module" >>root/lib/modules/order
done
find root/lib/modules -name '*.xz' -exec xz -d {{}} +
(cd root && find . | cpio --quiet -o -H newc -R 0:0) >initrd
cp /boot/vmlinuz-* vmlinuz
"""


@dataclass(frozen=True)
class Recipe:
    """A dom0 of one Xen release. Paths in `files` are absolute paths in dom0."""

    xen: str
    suite: str
    packages: tuple[str, ...]
    wheels: tuple[str, ...] = _WHEELS
    excluded_paths: tuple[str, ...] = _EXCLUDED_PATHS
    kernel_modules: tuple[str, ...] = _KERNEL_MODULES
    early_files: tuple[tuple[str, str], ...] = tuple(_EARLY_FILES.items())
    files: tuple[tuple[str, str], ...] = tuple(_FILES.items())
    executable: tuple[str, ...] = tuple(sorted(_EXECUTABLE))
    set_up: str = _SET_UP
    disk_size: str = "8G"

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change whenever the recipe does."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _recipe(xen: str, suite: str) -> Recipe:
    return Recipe(
        xen=xen,
        suite=suite,
        packages=(*_PACKAGES, f"xen-hypervisor-{xen}-amd64", f"xen-utils-{xen}"),
    )


RECIPES = {
    "4.17": _recipe("4.17", "bookworm"),
    "4.20": _recipe("4.20", "trixie"),
}
