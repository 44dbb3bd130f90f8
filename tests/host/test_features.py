# SPDX-License-Identifier: GPL-2.0
"""What a disk offers besides I/O: discards, a serial number, and clear refusals."""

import re

import pytest

from test_errors import write_and_verify
from vbw.guest import GuestError
from vbw.machine import Config, Disk, file_node, raw_node
from vbw.testdev import machine_with
from vbw.vm import OURS, STOCK, wait_for_disks

SYS = "/sys/block/vda"
MIB = 1 << 20


@pytest.fixture
def thin(boot, image):
    """A machine with a disk whose image gives back what is discarded."""
    node = raw_node(file_node(image, discard="unmap"), discard="unmap")
    return boot(Config(disks=[Disk(node, props={"num-queues": 2})]))


def content(image, offset, length):
    """What the host finds in the image."""
    with image.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def test_discard(thin, image):
    assert int(thin.guest(f"cat {SYS}/queue/discard_max_bytes")) > 0
    for number in range(4):
        assert thin.guest(f"vbwtool write /dev/vda {number * MIB} {MIB} {number}") == "OK"
    allocated = image.stat().st_blocks
    thin.guest(f"blkdiscard -o {MIB} -l {2 * MIB} /dev/vda")
    assert content(image, MIB, 2 * MIB) == bytes(2 * MIB)
    assert allocated - image.stat().st_blocks >= 2 * MIB // 512
    for number in (0, 3):
        assert thin.guest(f"vbwtool verify /dev/vda {number * MIB} {MIB} {number}") == "OK"


def test_write_zeroes(thin, image):
    assert int(thin.guest(f"cat {SYS}/queue/write_zeroes_max_bytes")) > 0
    for number in range(4):
        assert thin.guest(f"vbwtool write /dev/vda {number * MIB} {MIB} {number}") == "OK"
    written = thin.guest(f"awk '{{ print $7 }}' {SYS}/stat")
    allocated = image.stat().st_blocks
    assert thin.guest(f"vbwtool zero /dev/vda {MIB} {2 * MIB}") == "OK"
    assert content(image, MIB, 2 * MIB) == bytes(2 * MIB)
    assert allocated - image.stat().st_blocks < MIB // 512, "they need not stay allocated"
    for number in (0, 3):
        assert thin.guest(f"vbwtool verify /dev/vda {number * MIB} {MIB} {number}") == "OK"
    assert thin.host_stats()["wr_operations"] < 4 * 8 + 8, \
        f"zeroes were sent as data, after {written} sectors"


def test_write_zeroes_that_may_unmap(thin, image):
    assert thin.guest(f"vbwtool write /dev/vda 0 {4 * MIB} 1") == "OK"
    allocated = image.stat().st_blocks
    assert thin.guest(f"vbwtool punch /dev/vda {MIB} {2 * MIB}") == "OK"
    assert content(image, MIB, 2 * MIB) == bytes(2 * MIB)
    assert allocated - image.stat().st_blocks >= 2 * MIB // 512


def test_no_discard(boot, disk):
    vm = boot(Config(disks=[disk(**{"discard": False, "write-zeroes": False})]))
    limits = vm.guest(f"cd {SYS}/queue; cat discard_max_bytes write_zeroes_max_bytes")
    assert limits.split() == ["0", "0"]
    with pytest.raises(GuestError):
        vm.guest("blkdiscard -o 0 -l 65536 /dev/vda")
    assert vm.guest("vbwtool zero /dev/vda 0 65536") == "OK", "zeroes are written instead"


@pytest.mark.parametrize("serial", ["", "a", "0123456789abcdefghij"], ids=len)
def test_serial(boot, disk, serial):
    vm = boot(Config(disks=[disk(**({"serial": serial} if serial else {}))]))
    assert vm.guest(f"cat {SYS}/serial") == serial
    assert vm.guest(f"for i in 1 2 3 4; do cat {SYS}/serial > /tmp/$i & done; wait; "
                    "cat /tmp/1 /tmp/2 /tmp/3 /tmp/4") == serial * 4


def test_geometry(boot, disk):
    vm = boot(Config(disks=[disk(cyls=100, heads=8, secs=32)]))
    # fdisk makes the cylinders up from the size.
    assert "8 heads, 32 sectors/track" in vm.guest("fdisk -l /dev/vda")


@pytest.mark.parametrize("driver", [STOCK, OURS])
def test_device_without_geometry(boot, testdev, driver):
    """As in other drivers, a cylinder is a MiB then."""
    vm = boot(machine_with(testdev()), driver=driver)
    vm.guest(wait_for_disks(1))
    assert "64 heads, 32 sectors/track" in vm.guest("fdisk -l /dev/vda")


def capacity_messages(vm):
    """What the kernel says of the disk's capacity."""
    return re.findall(r"\[vda\] (.* logical blocks .*)", vm.guest("dmesg"))


def test_size_changes(boot, disk):
    """The host makes the disk larger and smaller: its users learn of it."""
    vm = boot(Config(disks=[disk()]))
    listener = vm.guest.start(
        """uevent sh -c 'echo "$ACTION $DEVNAME $RESIZE" >> /run/uevents' > /dev/null""")
    # The listener is there when it hears of an event that we have asked for.
    vm.guest(f"until grep -qs '^change vda' /run/uevents; do echo change > {SYS}/uevent; usleep 50000; done")
    for mib in (96, 32):
        vm.qmp("block_resize", **{"node-name": "disk0-node", "size": mib * MIB})
        vm.guest.until(f"[ $(cat {SYS}/size) = {mib * 2048} ]")
        write_and_verify(vm, (mib - 1) * MIB, mib)
    assert listener.running()
    vm.guest.until("[ $(grep -c '^change vda 1$' /run/uevents) = 2 ]")
    vm.guest("kill $(pidof uevent)")
    assert capacity_messages(vm)[1:] == [
        "new size: 196608 512-byte logical blocks (101 MB/96.0 MiB)",
        "new size: 65536 512-byte logical blocks (33.6 MB/32.0 MiB)"]


def test_capacity_is_announced_as_the_stock_driver_does(boot, disk):
    vm = boot(Config(disks=[disk(logical_block_size=4096, physical_block_size=4096)]))
    vm.guest(f"rmmod {OURS}")
    vm.load(STOCK)
    assert capacity_messages(vm) == ["16384 4096-byte logical blocks (67.1 MB/64.0 MiB)"] * 2


def load_and_list(vm):
    """The disks that are there when all devices have been probed, which insmod waits for."""
    return vm.guest("insmod /vbw/virtio_blk_wce.ko && cd /sys/block && echo vd*")


def test_probe_failure(boot, folder):
    """A disk that cannot be is refused; the other one, and the driver, are as if it was not."""
    disks = []
    for number, props in enumerate(({"logical_block_size": 2 * MIB,
                                     "physical_block_size": 2 * MIB}, {})):
        image = folder / f"disk{number}.img"
        with image.open("wb") as file:
            file.truncate(8 * MIB)
        disks.append(Disk(raw_node(file_node(image)), name=f"disk{number}", props=props))
    vm = boot(Config(disks=disks), driver=None)
    assert load_and_list(vm) == "vda"
    write_and_verify(vm, 0, 1)
    assert "probe with driver virtio_blk_wce failed with error -22" in vm.guest("dmesg")
    for _ in range(3):
        vm.guest("rmmod virtio_blk_wce")
        assert load_and_list(vm) == "vda"
        write_and_verify(vm, 0, 1)
