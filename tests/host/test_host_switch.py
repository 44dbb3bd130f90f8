# SPDX-License-Identifier: GPL-2.0
"""The host changes the mode, by a command of QEMU's monitor, and the guest follows."""

import pytest
from qemu.qmp import ExecuteError

from test_flushes import flushes_of
from test_reset import until, wait_for
from test_switch import set_mode
from vbw.machine import Config
from vbw.vm import STOCK

FSYNC = "vbwtool write /dev/vda 0 4096 1 && vbwtool fsync /dev/vda"


def host_sets(vm, mode):
    """Have the host set a mode."""
    vm.qmp("block-set-write-cache", id="disk0", writeback=mode == "write back")


def pending(vm):
    """Whether the guest has not answered yet."""
    return any(info.get("write-back-requested", False) for info in vm.qmp("query-block"))


def test_guest_follows(boot, disk):
    """To write back by its consent: it flushes before the disk is that."""
    vm = boot(Config(disks=[disk()]))
    for _ in range(3):
        waiter = vm.guest.start("vbwtool wait /sys/block/vda/cache_type 'write through' 20")
        host_sets(vm, "write through")
        assert waiter.wait(30).text == "OK", "who polls the attribute is woken"
        assert flushes_of(vm, FSYNC) == 0
        host_sets(vm, "write back")
        until(lambda: not pending(vm), "the guest does not answer")
        assert vm.host_mode() == "write back"
        assert vm.guest("cat /sys/block/vda/cache_type") == "write back"
        assert flushes_of(vm, FSYNC) == 1


def test_guest_has_the_last_word(boot, disk):
    """After a change by the host the guest can still switch."""
    vm = boot(Config(disks=[disk()]))
    host_sets(vm, "write through")
    for mode in ("write back", "write through", "write back"):
        assert set_mode(vm, mode) == "OK"
        wait_for(vm, mode, f"ok {mode}")


@pytest.mark.parametrize("props", [{}, {"set-wce": False}], ids=["set-wce", "config-wce"])
def test_not_for_a_driver_that_cannot_answer(boot, disk, props):
    vm = boot(Config(disks=[disk(**props)]), driver=STOCK)
    for mode in ("write through", "write back"):
        with pytest.raises(ExecuteError, match="negotiated SET_WCE"):
            host_sets(vm, mode)
    assert vm.host_mode() == "write back"
