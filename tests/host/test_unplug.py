# SPDX-License-Identifier: GPL-2.0
"""The disk is pulled out while it is used."""

import pytest

from test_reset import PORT, until
from vbw.machine import Config, Disk, file_node, raw_node

STATUS = "/sys/block/vda/cache_type_status"
GONE = ("n=0; while [ -e /sys/block/vda ] || [ -e /dev/vda ]; do n=$((n + 1)); "
        "[ $n -lt 300 ] || exit 1; usleep 100000; done")


@pytest.fixture
def machine(boot, image):
    """Start a machine whose disk can be pulled out."""

    def start(wrapper=()):
        disk = Disk(raw_node(file_node(image)), props={"bus": "root0", "num-queues": 2})
        return boot(Config(disks=[disk], extra_first=PORT, wrapper=list(wrapper)))

    return start


def devices(vm):
    """The names of QEMU's devices."""
    return [entry["name"] for entry in vm.qmp("qom-list", path="/machine/peripheral")]


def test_under_load(machine):
    """The load ends with an error, the disk is gone, and can come back."""
    vm = machine()
    load = vm.guest.start(
        "fio --name=load --filename=/dev/vda --size=16m --rw=randrw --bs=4k --direct=1 "
        "--ioengine=libaio --iodepth=16 --time_based --runtime=600")
    vm.guest("n=0; until [ $(awk '{ print $5 }' /sys/block/vda/stat) -gt 100 ]; do "
             "n=$((n + 1)); [ $n -lt 200 ] || exit 1; usleep 50000; done")
    vm.qmp("device_del", id="disk0")
    vm.guest(GONE)
    assert load.wait(60).status != 0
    until(lambda: "disk0" not in devices(vm), "QEMU keeps the device")
    vm.qmp("device_add", driver="virtio-blk-pci", id="disk0", bus="root0", drive="disk0-node")
    vm.guest("n=0; until [ -b /dev/vda ]; do n=$((n + 1)); [ $n -lt 300 ] || exit 1; "
             "usleep 100000; done")
    assert vm.guest("vbwtool write /dev/vda 0 4096 1 && vbwtool verify /dev/vda 0 4096 1") == "OK\nOK"


def test_while_a_switch_is_pending(machine, folder):
    """ENODEV for its writer and for who waits behind it.

    The flush of the switch is a slow one: QEMU can't reset a device before it has ended.
    """
    vm = machine(["strace", "-f", "-o", str(folder / "strace"), "--seccomp-bpf",
                  "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=4s:when=1..2"])
    assert vm.guest("vbwtool write /dev/vda 0 4096 1") == "OK"
    writers = [vm.guest.start(f"vbwtool set /sys/block/vda/cache_type '{mode}'")
               for mode in ("write through", "write back")]
    assert vm.guest(f"vbwtool wait {STATUS} 'pending write back' 10") == "OK"
    vm.qmp("device_del", id="disk0")
    assert [writer.wait(60).text for writer in writers] == ["ENODEV", "ENODEV"]
    vm.guest(GONE)
    until(lambda: "disk0" not in devices(vm), "QEMU keeps the device")
