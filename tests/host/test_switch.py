# SPDX-License-Identifier: GPL-2.0
"""The host sees every switch that the guest makes, at each step."""

import pytest

from vbw.machine import Config

MODES = ("write through", "write back")


def guest_view(vm):
    """All that the guest says about the mode of its disk, and whether flushes reach the driver."""
    sys = "/sys/block/vda"
    return vm.guest(f"cat {sys}/cache_type {sys}/queue/write_cache {sys}/cache_type_status").split("\n")


def expect(vm, mode, status, write_cache="write back"):
    """Guest and host agree on the mode, and the status is the given one.

    Flushes reach the driver of a disk that can be switched whatever the mode is.
    """
    assert guest_view(vm) == [mode, write_cache, status]
    assert vm.host_mode() == mode


def has_set_wce(vm):
    """Whether the driver has negotiated the request, feature bit 23."""
    return vm.guest("cut -c24 /sys/block/vda/device/features") == "1"


def set_mode(vm, mode, path="/sys/block/vda/cache_type"):
    """One write into cache_type; returns OK or the error's name."""
    return vm.guest(f"vbwtool set {path} '{mode}'")


@pytest.mark.parametrize("machine, transport", [
    ("q35", "pci-modern"), ("q35", "pci-transitional"), ("q35", "pci-legacy"), ("microvm", "mmio"),
])
def test_host_agrees(boot, disk, machine, transport):
    vm = boot(Config(machine=machine, disks=[disk(transport)]))
    assert has_set_wce(vm)
    expect(vm, "write back", "none")
    for mode in MODES * 2:
        assert set_mode(vm, mode) == "OK"
        expect(vm, mode, f"ok {mode}")
        assert set_mode(vm, mode) == "OK", "the mode already in force"
        expect(vm, mode, f"ok {mode}")


@pytest.mark.parametrize("start, mode", [("on", "write back"), ("off", "write through")])
def test_mode_that_the_device_starts_with(boot, disk, start, mode):
    vm = boot(Config(disks=[disk(**{"write-cache": start})]))
    expect(vm, mode, "none")
    for new in MODES:
        assert set_mode(vm, new) == "OK"
        expect(vm, new, f"ok {new}")


@pytest.mark.parametrize("queues", [1, 4])
def test_host_agrees_under_load(boot, disk, queues):
    vm = boot(Config(cpus=queues if queues > 1 else 2, disks=[disk(**{"num-queues": queues})]))
    load = vm.guest.start(
        "fio --name=load --filename=/dev/vda --size=16m --rw=randwrite --bs=4k --direct=1 "
        "--ioengine=libaio --iodepth=32 --fsync=50 --verify=crc32c --verify_fatal=1 --loops=1000 "
        "--time_based --runtime=3600 --output=/run/load.out")
    vm.guest("until [ $(awk '{ print $5 }' /sys/block/vda/stat) -gt 100 ]; do usleep 50000; done")
    for mode in MODES * 5:
        before = vm.host_stats()["wr_operations"]
        assert set_mode(vm, mode) == "OK"
        expect(vm, mode, f"ok {mode}")
        vm.guest(f"until [ $(awk '{{ print $5 }}' /sys/block/vda/stat) -gt {before + 20} ]; "
                 "do usleep 20000; done")
    assert load.running(), load.wait().text
    load.signal("INT")
    load.wait(60)
    assert "err= 0" in vm.guest("cat /run/load.out")


def test_reset_returns_to_the_mode_at_start(boot, disk):
    """What the guest has set is gone with the driver; the device starts as it was."""
    vm = boot(Config(disks=[disk()]))
    assert set_mode(vm, "write through") == "OK"
    assert vm.host_mode() == "write through"
    vm.guest("rmmod virtio_blk_wce")
    vm.load()
    expect(vm, "write back", "none")
