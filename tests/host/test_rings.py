# SPDX-License-Identifier: GPL-2.0
"""Other ways for guest and device to share memory: rings, and what addresses mean."""

import pytest

from test_switch import expect, set_mode
from vbw.machine import Config
from vbw.testdev import machine_with
from vbw.vm import wait_for_disks

# What the device is given, the kernel's command line, and feature bits that must be there or not.
WAYS = {
    "packed": ({"packed": True}, "", {34: "1"}),
    "no-indirect-descriptors": ({"indirect_desc": False}, "", {28: "0"}),
    "no-event-index": ({"event_idx": False}, "", {29: "0"}),
    "bounce-buffers": ({"iommu_platform": True}, "swiotlb=force", {33: "1"}),
    "packed-bounce-buffers": ({"packed": True, "iommu_platform": True}, "swiotlb=force",
                              {33: "1", 34: "1"}),
}


def load_and_switch(vm):
    """The disk gives back what it was given, while it is switched."""
    load = vm.guest.start(
        "fio --name=load --filename=/dev/vda --size=8m --rw=randwrite --bsrange=4k-128k --direct=1 "
        "--ioengine=libaio --iodepth=16 --verify=crc32c --loops=2 --output=/run/fio.out")
    for mode in ("write through", "write back"):
        assert set_mode(vm, mode) == "OK"
        expect(vm, mode, f"ok {mode}")
    assert load.wait(120).status == 0
    assert vm.guest("grep -c 'err= 0' /run/fio.out") == "1"


def test_behind_an_iommu(boot, disk):
    """The guest's IOMMU, a virtio device too, tells the disk which memory it may touch."""
    vm = boot(Config(disks=[disk(**{"iommu_platform": True, "num-queues": 2})],
                     extra_first=["-device", '{"driver": "virtio-iommu-pci"}']), driver=None)
    # What has a driver when the IOMMU comes is left out, so it comes before that of the disk's bus.
    device = vm.guest(r"""cd /sys/bus/pci/drivers/virtio-pci; for d in 0*; do
        [ $(cat $d/device) != 0x1042 ] || echo $d; done""")
    vm.guest(f"echo {device} > /sys/bus/pci/drivers/virtio-pci/unbind; insmod /lib/modules/virtio-iommu.ko; "
             f"echo {device} > /sys/bus/pci/drivers/virtio-pci/bind")
    vm.load()
    assert vm.guest(f"cat /sys/bus/pci/devices/{device}/iommu_group/type").startswith("DMA")
    assert vm.guest("cat /sys/block/vda/device/features")[33] == "1"
    load_and_switch(vm)


@pytest.mark.parametrize("set_wce", [True, False])
def test_in_order(boot, disk, set_wce):
    """Reads would wait behind a switch: where there is one, buffers may be used in any order."""
    vm = boot(Config(disks=[disk(**{"in_order": True, "set-wce": set_wce})]))
    features = vm.guest("cat /sys/block/vda/device/features")
    assert features[23] == str(int(set_wce))
    assert features[35] == str(int(not set_wce))
    load_and_switch(vm)


@pytest.mark.parametrize("props, kernel_args, bits", WAYS.values(), ids=WAYS.keys())
def test_load_and_switches(boot, disk, props, kernel_args, bits):
    vm = boot(Config(disks=[disk(**props, **{"num-queues": 2})], kernel_args=kernel_args))
    features = vm.guest("cat /sys/block/vda/device/features")
    assert {bit: features[bit] for bit in bits} == bits
    load_and_switch(vm)


# Where the configuration space has the field.
SEG_MAX = 12
RING = 1024


@pytest.mark.parametrize("indirect", [False, True], ids=["no-indirect-descriptors", "indirect"])
def test_more_segments_than_descriptors(boot, testdev, indirect):
    """A device that takes requests of more segments than its ring has gets shorter ones, which all fit.

    The longest one of these fills the ring.
    """
    device = testdev(*([] if indirect else ["--without", "indirect"]))
    device.config(SEG_MAX, 4 * RING, 4)
    vm = boot(machine_with(device))
    vm.guest(wait_for_disks(1))
    assert vm.guest("cat /sys/block/vda/device/features")[28] == str(int(indirect))
    assert device.ring()[0] == RING
    assert vm.guest("cat /sys/block/vda/queue/max_segments") == str(RING - 2)

    # Neighbours on the disk that are none in memory: each page is a segment.
    vm.guest("echo 8192 > /sys/block/vda/queue/max_sectors_kb; "
             "cat /sys/block/vda/queue/max_sectors_kb | grep -x 8192")
    # All of it is written at the end, however long it takes to get there.
    vm.guest("cd /proc/sys/vm && echo 0 > dirty_writeback_centisecs && echo $((64 << 20)) > dirty_background_bytes && "
             "echo $((128 << 20)) > dirty_bytes")
    device.misbehave("no-answer")
    load = vm.guest.start(
        "fio --name=load --filename=/dev/vda --size=16m --rw=randwrite --bs=4k --ioengine=sync "
        "--end_fsync=1 --verify=crc32c --output=/run/fio.out")
    if not indirect:
        vm.guest.until("grep -qs STOPPED /sys/kernel/debug/block/vda/hctx0/state")
        assert RING / 2 < device.ring()[1] <= RING
    device.behave()
    device.tell("release")
    assert load.wait(60).status == 0
    assert vm.guest("grep -c 'err= 0' /run/fio.out") == "1"
    sectors, requests = vm.guest("awk '{ print $7, $5 }' /sys/block/vda/stat").split()
    assert int(sectors) * 512 / 4096 / int(requests) > RING / 2, "the requests are short"
