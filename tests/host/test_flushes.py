# SPDX-License-Identifier: GPL-2.0
"""What the device is sent: flushes in write back, and none in write through by SET_WCE."""

import pytest

from test_switch import set_mode
from vbw.machine import Config

# The device's properties, and the flushes that an fsync in write through needs. A device whose mode
# is written into its configuration space may write through without having flushed: stock QEMU does.
DEVICES = {
    "set-wce": ({}, 0),
    "config-wce": ({"set-wce": False}, 1),
}


def flushes_of(vm, command):
    """How many flushes of the guest the host has counted during a command."""
    before = vm.host_stats()["flush_operations"]
    vm.guest(command)
    return vm.host_stats()["flush_operations"] - before


@pytest.mark.parametrize("props, needed", DEVICES.values(), ids=DEVICES.keys())
def test_fsync(boot, disk, props, needed):
    vm = boot(Config(disks=[disk(**props)]))
    command = "vbwtool write /dev/vda 0 4096 1 && vbwtool fsync /dev/vda"
    for _ in range(2):
        assert flushes_of(vm, command) == 1, "write back: the cache has to be flushed"
        assert set_mode(vm, "write through") == "OK"
        assert flushes_of(vm, command) == needed, "write through"
        assert set_mode(vm, "write back") == "OK"


def test_failed_switch_leaves_flushes_alone(boot, image):
    """After a failed switch to write through the guest still flushes."""
    from vbw.machine import Disk, flush_fails_node
    vm = boot(Config(disks=[Disk(flush_fails_node(image))]))
    assert vm.guest("vbwtool write /dev/vda 0 4096 1") == "OK"
    assert set_mode(vm, "write through") == "EIO"
    assert flushes_of(vm, "vbwtool write /dev/vda 0 4096 1 && vbwtool fsync /dev/vda") == 1
