# SPDX-License-Identifier: GPL-2.0
"""The host changes the mode, by a command of QEMU's monitor, and the guest follows."""

import pytest
from qemu.qmp import ExecuteError

from test_flushes import flushes_of
from test_reset import wait_for
from test_switch import set_mode
from vbw.machine import Config
from vbw.vm import STOCK

FSYNC = "vbwtool write /dev/vda 0 4096 1 && vbwtool fsync /dev/vda"


def host_sets(vm, mode):
    """Have the host set a mode."""
    vm.qmp("block-set-write-cache", id="disk0", writeback=mode == "write back")


def test_guest_follows(boot, disk):
    vm = boot(Config(disks=[disk()]))
    waiter = vm.guest.start("vbwtool wait /sys/block/vda/cache_type 'write through' 20")
    host_sets(vm, "write through")
    assert waiter.wait(30).text == "OK", "who polls the attribute is woken"
    wait_for(vm, "write through", "none")
    assert flushes_of(vm, FSYNC) == 0
    host_sets(vm, "write back")
    wait_for(vm, "write back", "none")
    assert flushes_of(vm, FSYNC) == 1


def test_guest_has_the_last_word(boot, disk):
    """After a change by the host the guest can still switch."""
    vm = boot(Config(disks=[disk()]))
    host_sets(vm, "write through")
    for mode in ("write back", "write through", "write back"):
        assert set_mode(vm, mode) == "OK"
        wait_for(vm, mode, f"ok {mode}")


def test_not_for_a_driver_that_would_not_notice(boot, disk):
    vm = boot(Config(disks=[disk()]), driver=STOCK)
    host_sets(vm, "write through")
    with pytest.raises(ExecuteError, match="might not notice"):
        host_sets(vm, "write back")
