# SPDX-License-Identifier: GPL-2.0
"""Our driver beside the kernel's own: each has disks, and a disk changes hands."""

import pytest

from test_reset import PORT
from test_switch import set_mode
from vbw.machine import Config, Disk, file_node, raw_node
from vbw.vm import OURS, STOCK


@pytest.fixture
def two_disks(folder):
    """Two images, of 1 and 2 MiB."""
    disks = []
    for number in (1, 2):
        image = folder / f"disk{number}.img"
        with image.open("wb") as file:
            file.truncate(number << 20)
        disks.append(Disk(raw_node(file_node(image)), name=f"disk{number}"))
    yield disks
    for number in (1, 2):
        (folder / f"disk{number}.img").unlink()


def owners(vm):
    """{size in MiB: (disk's name, driver)} of all disks."""
    result = {}
    for line in vm.guest(
            "cd /sys/block; for d in vd*; do echo $(cat $d/size) $d "
            "$(basename $(readlink $d/device/driver)); done").splitlines():
        sectors, name, driver = line.split()
        result[int(sectors) >> 11] = (name, driver)
    return result


def move(vm, name, old, new):
    """Take a disk from a driver and give it to another."""
    vm.guest(f"""
        device=$(basename $(readlink -f /sys/block/{name}/device))
        echo $device > /sys/bus/virtio/drivers/{old}/unbind
        echo $device > /sys/bus/virtio/drivers/{new}/bind
        n=0
        until [ "$(basename $(readlink /sys/bus/virtio/devices/$device/driver))" = {new} ] &&
              [ -d /sys/bus/virtio/devices/$device/block ]; do
            n=$((n + 1)); [ $n -lt 200 ] || exit 1; usleep 50000
        done""")


def works(vm, name):
    """A disk takes and gives data."""
    for what in ("write", "verify"):
        assert vm.guest(f"vbwtool {what} /dev/{name} 0 65536 3") == "OK"


@pytest.mark.parametrize("first, second", [(STOCK, OURS), (OURS, STOCK)])
def test_the_first_one_loaded_has_the_disks(boot, two_disks, first, second):
    vm = boot(Config(disks=two_disks), driver=first)
    vm.load(second)
    assert [driver for _, driver in owners(vm).values()] == [first, first]
    for name, _ in owners(vm).values():
        works(vm, name)


def test_a_disk_changes_hands(boot, two_disks):
    vm = boot(Config(disks=two_disks), driver=STOCK)
    vm.load(OURS)

    for rounds in range(3):
        move(vm, owners(vm)[2][0], STOCK, OURS)
        found = owners(vm)
        assert found[1][1] == STOCK and found[2][1] == OURS
        assert found[1][0] != found[2][0], "two disks need two names"
        works(vm, found[1][0])
        works(vm, found[2][0])
        assert set_mode(vm, "write through", f"/sys/block/{found[2][0]}/cache_type") == "OK"
        assert vm.host_mode("disk2") == "write through"
        assert vm.host_mode("disk1") == "write back"
        move(vm, found[2][0], OURS, STOCK)
        assert [driver for _, driver in owners(vm).values()] == [STOCK, STOCK], rounds
    vm.guest(f"rmmod {OURS}")


def test_instead_of_the_stock_driver(boot, two_disks):
    """Unload the one, load the other: all disks are there again."""
    vm = boot(Config(disks=two_disks), driver=STOCK)
    vm.guest(f"rmmod {STOCK}")
    vm.load(OURS)
    assert [driver for _, driver in owners(vm).values()] == [OURS, OURS]
    for name, _ in owners(vm).values():
        works(vm, name)


# What the kernel says of the disk that virtio_blk gives a name that is in use.
CLASH = "cannot create duplicate filename"


def clash(vm, *devices):
    """Whether virtio_blk has failed for each of these because of the name."""
    log = vm.guest("dmesg")
    return all(f"{device}: probe with driver {STOCK} failed with error -17" in log for device in devices)


def device_of(vm, name):
    """The virtio device of a disk."""
    return vm.guest(f"basename $(readlink -f /sys/block/{name}/device)")


def test_a_disk_that_the_other_driver_could_not_name(boot, two_disks):
    """It goes back at once, with the features that this driver has accepted."""
    vm = boot(Config(disks=two_disks, tolerated=CLASH))
    vm.load(STOCK)
    name = owners(vm)[2][0]
    device = device_of(vm, name)
    bind = f"echo {device} > /sys/bus/virtio/drivers"
    assert name != "vda"
    vm.guest(f"{bind}/{OURS}/unbind")
    # virtio_blk begins with the name that our other disk has.
    assert vm.guest.run(f"{bind}/{STOCK}/bind", check=False).status != 0
    assert clash(vm, device)
    vm.guest(f"{bind}/{OURS}/bind")
    assert owners(vm)[2] == (name, OURS)
    works(vm, name)
    assert set_mode(vm, "write through", f"/sys/block/{name}/cache_type") == "OK"
    assert vm.host_mode("disk2") == "write through"


def test_a_new_disk_that_the_other_driver_can_not_name(boot, two_disks, folder):
    """The kernel gives it to the other driver first, and to this one when that has failed."""
    vm = boot(Config(disks=two_disks, extra_first=PORT, tolerated=CLASH), driver=STOCK)
    vm.load(OURS)
    move(vm, owners(vm)[2][0], STOCK, OURS)
    assert {name for name, _ in owners(vm).values()} == {"vda", "vdb"}
    with (folder / "disk3.img").open("wb") as file:
        file.truncate(3 << 20)
    vm.qmp("blockdev-add", **raw_node(file_node(folder / "disk3.img")), **{"node-name": "disk3-node"})
    vm.qmp("device_add", driver="virtio-blk-pci", id="disk3", bus="root0", drive="disk3-node")
    vm.guest.until("[ -b /dev/vdc ]", 30)
    assert owners(vm)[3] == ("vdc", OURS)
    assert clash(vm, device_of(vm, "vdc"))
    works(vm, "vdc")
    assert set_mode(vm, "write through", "/sys/block/vdc/cache_type") == "OK"
    assert vm.host_mode("disk3") == "write through"
    (folder / "disk3.img").unlink()

