# SPDX-License-Identifier: GPL-2.0
"""A switch that fails changes nothing, and can be tried again.

QEMU only flushes an image that was written to, so each test writes first.
"""

import pytest

from test_switch import expect, set_mode
from vbw.machine import Config, Disk, flush_fails_node

# The device's properties, and its flushes that one switch needs. After the write into its
# configuration space it flushes by itself, and then again because the driver asks it to.
DEVICES = {
    "set-wce": ({}, 1),
    "config-wce": ({"set-wce": False}, 2),
}


def write_and_verify(vm, offset, seed):
    """The disk still takes data and gives it back."""
    for what in ("write", "verify"):
        assert vm.guest(f"vbwtool {what} /dev/vda {offset} 65536 {seed}") == "OK"


@pytest.mark.parametrize("props, flushes", DEVICES.values(), ids=DEVICES.keys())
def test_flush_fails_once(boot, image, props, flushes):
    vm = boot(Config(disks=[Disk(flush_fails_node(image, times=flushes), props=props)]))
    expect(vm, "write back", "none")
    write_and_verify(vm, 0, 1)

    assert set_mode(vm, "write through") == "EIO"
    expect(vm, "write back", "error write through EIO")
    write_and_verify(vm, 65536, 2)

    assert set_mode(vm, "write through") == "OK"
    expect(vm, "write through", "ok write through")
    write_and_verify(vm, 131072, 3)
    assert set_mode(vm, "write back") == "OK"
    expect(vm, "write back", "ok write back")


def test_flush_always_fails(boot, image):
    vm = boot(Config(disks=[Disk(flush_fails_node(image, once=False))]))
    for number in range(3):
        write_and_verify(vm, number * 65536, number)
        assert set_mode(vm, "write through") == "EIO"
        expect(vm, "write back", "error write through EIO")
    write_and_verify(vm, 0, 9)
    assert set_mode(vm, "write back") == "OK", "needs no flush"
    expect(vm, "write back", "ok write back")


def test_flush_fails_under_load(boot, image):
    """No request of the load fails because a switch was tried."""
    vm = boot(Config(disks=[Disk(flush_fails_node(image, once=False), props={"num-queues": 2})]))
    load = vm.guest.start(
        "fio --name=load --filename=/dev/vda --size=16m --rw=randwrite --bs=4k --direct=1 "
        "--ioengine=libaio --iodepth=32 --verify=crc32c --verify_fatal=1 --loops=1000 "
        f"--time_based --runtime={6 * vm.env.patience}")
    vm.guest("until [ $(awk '{ print $5 }' /sys/block/vda/stat) -gt 100 ]; do usleep 50000; done")
    for _ in range(10):
        assert set_mode(vm, "write through") == "EIO"
        expect(vm, "write back", "error write through EIO")
    assert load.running(), "the load has to last longer than the switching"
    output = load.wait(60)
    assert output.status == 0, output.text
    assert "err= 0" in output.text


def test_bad_words_reach_nobody(boot, disk):
    """EINVAL comes from the driver: the device is not asked, the status unchanged."""
    vm = boot(Config(disks=[disk()]))
    flushes = vm.host_stats()["flush_operations"]
    for word in ("", "write backx", "write", "x" * 3000):
        if word:
            assert set_mode(vm, word) == "EINVAL"
        expect(vm, "write back", "none")
    assert vm.host_stats()["flush_operations"] == flushes
