# SPDX-License-Identifier: GPL-2.0
"""The package virtio-blk-wce-dkms, from "make deb": on a Debian whose root is on a disk of the driver.

It is installed on a Debian that has what it depends on and nothing else of the kind, where it makes a KDIR
and the module; in the guest it is upgraded, removed and purged while the root disk is in use.
"""

import dataclasses
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from vbw import debian
from vbw.machine import Config, Disk, file_node, raw_node

pytestmark = [pytest.mark.stock_kernel("a distribution's kernel, with its initramfs"), pytest.mark.xdist_group("package"),
              pytest.mark.long("a Debian with compilers, in which the package makes a KDIR")]

NEXT = "0.2"
# One disk is told by its serial number, and one that has none by its place.
RULES = "/usr/share/doc/virtio-blk-wce-dkms/examples/70-virtio-blk-wce.rules"
PLACE = "0x10"
SETTINGS = f"""
echo "options virtio_blk poll_queues=2" > /etc/modprobe.d/local.conf
sed 's/^#\\(.*KERNELS==\\)"[^"]*"/\\1"0000:00:{int(PLACE, 16):02x}.0"/' {RULES} > /etc/udev/rules.d/70-virtio-blk-wce.rules
grep -q '^ACTION.*KERNELS==' /etc/udev/rules.d/70-virtio-blk-wce.rules
"""
FIO = ("fio --name=day --filename=/var/tmp/day --size=16m --rw=randwrite --bs=4k --direct=1 "
       "--ioengine=libaio --iodepth=8 --fsync=64 --verify=crc32c --end_fsync=1")
DISKS = """
cd /sys/block
for d in vd*; do
    echo "$(cat $d/serial): $(basename $(readlink $d/device/driver)), $(cat $d/cache_type)"
done | sort
"""
# Everything that a package, or dkms for it, could leave behind.
REMAINS = """
find /etc /usr /var /boot -xdev \\( -name '*virtio_blk_wce*' -o -name '*virtio-blk-wce*' \\) \\
    ! -path '/etc/udev/rules.d/*'
lsinitramfs /boot/initrd.img-* | grep virtio_blk_wce || true
"""


def build(env, *version):
    """The package, as "make deb" leaves it."""
    return Path(subprocess.run([env.src / "scripts/deb.sh", *version], check=True, capture_output=True,
                               text=True).stdout.strip())


class System:
    """A Debian, with packages beside it to install."""

    def __init__(self, env, folder):
        self.env = env
        self.folder = folder
        self.debs = Path(env.root_disk).parent
        self.tree = debian.Tree(env, folder / "tree")

    def run(self, commands):
        """Run commands in it, and keep what they say."""
        said = self.tree.run(commands, (self.debs / "dkms", "/srv/dkms"), (self.debs / "dracut", "/srv/dracut"))
        with (self.folder / "output").open("a") as log:
            log.write(said)
        return said

    def make_disk(self, image):
        """A disk of it. Of the KDIR only what tells that it is there: the guest builds nothing new."""
        for kdir in list((self.tree.path / "var/cache/virtio-blk-wce").glob("kdir/*")):
            spare = self.folder / kdir.name
            if not spare.exists():
                kdir.rename(spare)
                (kdir / "rust").mkdir(parents=True)
                for name in (".complete", ".config", "rust/libkernel.rmeta"):
                    shutil.copy2(spare / name, kdir / name)
        self.tree.make_disk(image, "4G")


class KdirCache:
    """The KDIR that dkms has made there, for the next run with the same packages and scripts: it takes minutes."""

    def __init__(self, env, system):
        parts = [env.root_disk.encode()] + [(env.src / "scripts" / name).read_bytes() for name in
                                            ("kdir.sh", "kdir-fits.sh", "kernel-needs.sh", "lib.sh", "dkms.sh")]
        self.folder = env.cache / "package-kdir"
        self.kept = self.folder / hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
        self.place = system.tree.path / "var/cache/virtio-blk-wce/kdir"
        self.made = False

    def bring(self):
        """Put it where dkms looks for it, if there is one."""
        if self.kept.exists():
            shutil.copytree(self.kept, self.place, symlinks=True)
        else:
            self.made = True

    def keep(self):
        """Keep the one that was made, and no other."""
        if self.made:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            new = self.folder / "new"
            shutil.copytree(self.place, new, symlinks=True)
            new.rename(self.kept)


@pytest.fixture(scope="module")
def system(env):
    """It, with the package installed."""
    folder = env.out / "package"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = System(env, folder)
    for package in (build(env), build(env, NEXT)):
        shutil.copy(package, made.tree.path / "srv")
    kdirs = KdirCache(env, made)
    kdirs.bring()
    made.run("apt-get install -y --no-install-recommends /srv/dkms/*.deb /srv/virtio-blk-wce-dkms_0.1_all.deb")
    kdirs.keep()
    made.run(SETTINGS + "update-initramfs -u")
    yield made
    shutil.rmtree(folder)


@pytest.fixture
def machine(env, folder, system):
    """Make a machine of the system: its root disk, and two scratch disks that have rules."""
    images = [folder / "root.img", folder / "serial.img", folder / "place.img"]

    def make():
        initrd = Path(shutil.copy(system.tree.initramfs(), folder / "initrd.img"))
        images.append(initrd)
        system.make_disk(images[0])
        for image in images[1:3]:
            with image.open("wb") as file:
                file.truncate(64 << 20)
        return Config(
            disks=[Disk(raw_node(file_node(images[0])), name="root", props={"serial": "root", "num-queues": 4}),
                   Disk(raw_node(file_node(images[1])), name="scratch", props={"serial": "scratch"}),
                   Disk(raw_node(file_node(images[2])), name="place", props={"addr": PLACE})],
            initrd=initrd, kernel_args=f"root=LABEL={debian.LABEL} ro {debian.QUIET}", memory_mb=1024,
            start_seconds=180, end_seconds=90, deadline=1500)

    yield make
    for image in images:
        image.unlink(missing_ok=True)


def start(boot, config):
    """Start it; all disks are on our driver, and in the modes that the rules say."""
    vm = boot(config, driver=None)
    vm.guest("udevadm settle --timeout=60", 90)
    assert vm.guest(DISKS).splitlines() == [
        ": virtio_blk_wce, write through",
        "root: virtio_blk_wce, write back",
        "scratch: virtio_blk_wce, write through"]
    # What was set for virtio_blk.
    assert vm.guest("cat /sys/module/virtio_blk_wce/parameters/poll_queues") == "2"
    assert vm.guest("lsmod | grep -w ^virtio_blk || true") == "" or \
        vm.guest("cat /sys/module/virtio_blk/parameters/poll_queues") == "2"
    return vm


def test_installs(env, system):
    """From the packages that it names to a module that is installed; nothing was skipped."""
    said = (system.folder / "output").read_text()
    assert "driver: compiling" in said and "left out" not in said
    assert system.run("dkms status").strip().endswith(": installed")
    assert system.run("find /lib/modules -name 'virtio_blk_wce*'").split() == [
        f"/lib/modules/{env.release}/updates/dkms/virtio_blk_wce.ko.xz"]


def test_life_of_the_package(boot, machine, system):
    """Upgraded, removed and purged while the root disk, and with it the module, is in use."""
    config = machine()
    vm = start(boot, config)
    writer = vm.guest.start(FIO)
    status = "dpkg-query -W -f '${Version} ${db:Status-Status}\\n' virtio-blk-wce-dkms"
    vm.guest(f"DEBIAN_FRONTEND=noninteractive dpkg -i /srv/virtio-blk-wce-dkms_{NEXT}_all.deb", 600)
    assert vm.guest(status) == f"{NEXT} installed"
    assert vm.guest("dkms status").startswith(f"virtio_blk_wce/{NEXT}, ")
    assert vm.guest("echo 'write through' > /sys/block/vda/cache_type; cat /sys/block/vda/cache_type") == "write through"
    vm.guest("dpkg --remove virtio-blk-wce-dkms", 600)
    vm.guest("dpkg --purge virtio-blk-wce-dkms", 600)
    assert vm.guest(REMAINS, 200) == ""
    assert writer.wait(300).status == 0
    vm.guest("sync")
    vm.finish()

    # The next start is from the initramfs that was made then.
    image = config.disks[0].node["file"]["filename"]
    debian.take_out(image, system.tree.initramfs().relative_to(system.tree.path), config.initrd)
    vm = boot(config, driver=None)
    vm.guest("udevadm settle --timeout=60", 90)
    assert set(re.findall(r": (\w+),", vm.guest(DISKS))) == {"virtio_blk"}
    vm.guest(FIO + " --verify_only", 120)
    vm.finish()
    debian.check_disk(image)


def test_initramfs_for_the_devices_in_use(system):
    """One that has nothing but what is asked for, as for a machine whose disks virtio_blk has now, has the module."""
    assert "virtio_blk_wce.ko" in system.run("""
        mkinitramfs -d /srv/initramfs -o /tmp/initrd $(ls /lib/modules) > /tmp/said 2>&1 || { cat /tmp/said; exit 1; }
        lsinitramfs /tmp/initrd
    """.replace("mkinitramfs", "mkdir -p /srv/initramfs; cp -r /etc/initramfs-tools/* /srv/initramfs/; "
                "sed -i 's/^MODULES=.*/MODULES=list/' /srv/initramfs/initramfs.conf; mkinitramfs"))


def test_dracut(boot, machine, system):
    """The other maker of initramfs: the package needs nothing else for it."""
    system.run("apt-get install -y --no-install-recommends /srv/dracut/*.deb")
    assert "/dracut" in system.run("readlink -f $(command -v dracut); dpkg -S $(command -v dracut)")
    assert system.run("dpkg-query -W -f '${db:Status-Status}' initramfs-tools || true").strip() != "installed"
    # A generic image, as for a system that is not the one that it is made on.
    system.run("""
        echo 'hostonly="no"' > /etc/dracut.conf.d/generic.conf
        dracut --force --kver $(ls /lib/modules)
    """)
    # Such an image has nothing of /etc/modprobe.d in it; the kernel's command line is the other way.
    config = machine()
    config = dataclasses.replace(config, kernel_args=config.kernel_args + " virtio_blk.poll_queues=2")
    vm = start(boot, config)
    vm.finish()


def test_kernel_without_its_source(env, boot, machine, system):
    """A kernel comes without linux-source: its package is installed, and says what it goes without."""
    said = system.run("""
        dkms uninstall virtio_blk_wce/0.1 -k $(ls /lib/modules)
        dkms unbuild virtio_blk_wce/0.1 -k $(ls /lib/modules)
        rm -rf /usr/src/linux-source-* /var/cache/virtio-blk-wce
        dpkg -i /srv/dkms/linux-image-*.deb
        dpkg-query -W -f 'linux-image is ${db:Status-Status}\\n' linux-image-$(ls /lib/modules)
    """)
    assert re.search(r"/usr/src/linux-source-\S+ is missing; install linux-headers-\S+ and linux-source-", said)
    assert f"virtio_blk_wce is left out for kernel {env.release}" in said
    assert said.splitlines()[-1] == "linux-image is installed"

    # With the module missing, what the package tells modprobe is no obstacle to the other driver.
    vm = boot(machine(), driver=None)
    vm.guest("udevadm settle --timeout=60", 90)
    assert set(re.findall(r": (\w+),", vm.guest(DISKS))) == {"virtio_blk"}
    vm.finish()
