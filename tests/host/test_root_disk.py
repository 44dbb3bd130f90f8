# SPDX-License-Identifier: GPL-2.0
"""A Debian with its root on a disk of the driver: installed as README.md says, used, started again."""

import itertools
import re
import shutil
import textwrap

import pytest

from vbw import debian
from vbw.machine import Config, Disk, file_node, raw_node

pytestmark = pytest.mark.stock_kernel("a distribution's kernel, with its initramfs")

RULE = "Documentation/udev/70-virtio-blk-wce.rules"
MODES = ("write through", "write back")
FIO = ("fio --name=day --filename=/var/tmp/day --size=16m --rw=randwrite --bs=4k --direct=1 "
       "--ioengine=libaio --iodepth=8 --fsync=64 --verify=crc32c --end_fsync=1")
DISKS = """
cd /sys/block
for d in vd*; do
    echo "$(cat $d/serial): $(basename $(readlink $d/device/driver)), $(cat $d/cache_type)," \
        "$(cat $d/queue/write_cache), $(cat $d/cache_type_status)"
done | sort
"""
INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends /srv/packages/*.deb"


def recipe(env):
    """The commands that README.md tells for the root disk."""
    text = (env.src / "README.md").read_text()
    block = re.search(r"^\*\*For good:\*\*(?:.+\n)+\n((?:    .*\n)+)", text, re.M)
    return textwrap.dedent(block.group(1))


@pytest.fixture
def machine(env, folder):
    """Debian on a disk of its own, with the driver installed, and a scratch disk that has a rule."""
    tree = debian.Tree(env, folder / "tree")
    tree.install_module()
    tree.run(recipe(env))
    shutil.copy(env.src / RULE, tree.path / "etc/udev/rules.d")
    initrd = shutil.copy(tree.initramfs(), folder / "initrd.img")
    image, scratch = folder / "root.img", folder / "scratch.img"
    tree.make_disk(image)
    shutil.rmtree(tree.path)
    with scratch.open("wb") as file:
        file.truncate(64 << 20)
    yield Config(
        disks=[Disk(raw_node(file_node(image)), name="root", props={"serial": "root"}),
               Disk(raw_node(file_node(scratch)), name="scratch", props={"serial": "scratch"})],
        initrd=initrd, kernel_args=f"root=LABEL={debian.LABEL} ro {debian.QUIET}", memory_mb=768,
        start_seconds=120, end_seconds=60, deadline=400)
    for path in (image, scratch, initrd):
        path.unlink()


def start(boot, config):
    """Start it; both disks are on our driver, and in the mode that they should be in."""
    vm = boot(config, driver=None)
    vm.guest("udevadm settle --timeout=60", 90)
    assert vm.guest(DISKS).splitlines() == [
        "root: virtio_blk_wce, write back, write back, none",
        "scratch: virtio_blk_wce, write through, write back, ok write through"]
    disk = vm.guest("basename $(findmnt -no SOURCE /)")
    assert vm.guest(f"cat /sys/block/{disk}/serial") == "root"
    return vm, disk


def test_a_day_on_it(boot, machine):
    vm, disk = start(boot, machine)
    attribute = f"/sys/block/{disk}/cache_type"
    jobs = [vm.guest.start(FIO), vm.guest.start(INSTALL)]
    switches = 0
    for mode in itertools.cycle(MODES):
        vm.guest(f"echo '{mode}' > {attribute}")
        assert vm.guest(f"cat {attribute}") == mode == vm.host_mode("root")
        switches += 1
        if switches >= 8 and mode == MODES[-1] and not any(job.running() for job in jobs):
            break
    for job in jobs:
        assert job.wait().status == 0
    vm.guest("sync")
    vm.finish()

    vm, disk = start(boot, machine)
    vm.guest(FIO + " --verify_only", 120)
    assert vm.guest("for f in /srv/packages/*.deb; do dpkg --verify $(dpkg-deb -f $f Package); done") == ""
    vm.finish()
    debian.check_disk(machine.disks[0].node["file"]["filename"])
