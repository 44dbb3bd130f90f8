# SPDX-License-Identifier: GPL-2.0
"""The disk is pulled out while it is used."""

import pytest

from test_reset import PORT, until
from vbw.machine import Config, Disk, file_node, raw_node

STATUS = "/sys/block/vda/cache_type_status"
GONE = "! [ -e /sys/block/vda ] && ! [ -e /dev/vda ]"


@pytest.fixture
def machine(boot, image):
    """Start a machine whose disk can be pulled out."""

    def start(wrapper=(), extra=()):
        disk = Disk(raw_node(file_node(image)), props={"bus": "root0", "num-queues": 2})
        return boot(Config(disks=[disk], extra_first=[*PORT, *extra], wrapper=list(wrapper)))

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
    vm.guest.until("[ $(awk '{ print $5 }' /sys/block/vda/stat) -gt 100 ]")
    vm.qmp("device_del", id="disk0")
    vm.guest.until(GONE, 30)
    assert load.wait(60).status != 0
    until(lambda: "disk0" not in devices(vm), "QEMU keeps the device")
    vm.qmp("device_add", driver="virtio-blk-pci", id="disk0", bus="root0", drive="disk0-node")
    vm.guest.until("[ -b /dev/vda ]", 30)
    assert vm.guest("vbwtool write /dev/vda 0 4096 1 && vbwtool verify /dev/vda 0 4096 1") == "OK\nOK"


def pci_config(vm, path):
    """The configuration space of a PCI function."""
    return bytes.fromhex(vm.guest(f"hexdump -v -e '1/1 \"%02x\"' {path}/config"))


def set_pci_config(vm, path, offset, value):
    """Write 16 bits to it."""
    bytes_ = "".join(f"\\x{byte:02x}" for byte in value.to_bytes(2, "little"))
    return f"printf '{bytes_}' | dd of={path}/config bs=2 seek={offset // 2} conv=notrunc 2>/dev/null"


# The slots are those of the ports then, and not ACPI's.
NATIVE = ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]
PCIE_CAPABILITY, SLOT_CONTROL = 0x10, 0x18
POWER_OFF, INDICATOR_OFF, INDICATOR = 0x400, 0x300, 0x300


def power_off(vm, port):
    """Take the power from the slot of a port, and do not tell the driver of the port before."""
    config = pci_config(vm, port)
    offset = config[0x34]
    while config[offset] != PCIE_CAPABILITY:
        offset = config[offset + 1]
        assert offset, "the port has no slot"
    offset += SLOT_CONTROL
    control = int.from_bytes(config[offset:offset + 2], "little")
    assert not control & POWER_OFF
    vm.guest(set_pci_config(vm, port, offset, control & ~INDICATOR | INDICATOR_OFF | POWER_OFF))


@pytest.mark.parametrize("answers", [True, False], ids=["answers", "owes"])
def test_surprise_removal(machine, folder, answers):
    """A disk that is gone before anybody was told: what it owes ends with an error, and so does the rest."""
    wrapper = [] if answers else [
        "strace", "-f", "-o", str(folder / "strace"), "--seccomp-bpf", "-e", "trace=fdatasync",
        "-e", "inject=fdatasync:delay_enter=1s"]
    vm = machine(wrapper, NATIVE)
    port = vm.guest("readlink -f /sys/block/vda/device/../..")
    load = vm.guest.start(
        "fio --name=load --filename=/dev/vda --size=16m --rw=randrw --bs=4k --direct=1 --fsync=32 "
        "--ioengine=libaio --iodepth=16 --time_based --runtime=600")
    buffered = vm.guest.start("dd if=/dev/zero of=/dev/vda bs=1M seek=32 count=24 conv=fsync")
    vm.guest.until("[ $(awk '{ print $5 }' /sys/block/vda/stat) -gt 100 ]")
    power_off(vm, port)
    # The driver of the port notices, but it leaves what stands in a slot that is off already.
    vm.guest.until("dmesg | grep -q 'Card not present'")
    vm.guest("[ -e /sys/block/vda ]")
    removal = vm.guest.start("echo 1 > $(readlink -f /sys/block/vda/device/..)/remove")
    vm.guest.until(GONE, 30)
    assert removal.wait(60).status == 0
    assert load.wait(60).status != 0
    buffered.wait(60)
    until(lambda: "disk0" not in devices(vm), "QEMU keeps the device")
    vm.guest("rmmod virtio_blk_wce")


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
    vm.guest.until(GONE, 30)
    until(lambda: "disk0" not in devices(vm), "QEMU keeps the device")
