# SPDX-License-Identifier: GPL-2.0
"""Durability across a switch: what was written before is on stable storage.

The guest writes a block in write back, switches to write through, and writes another
block. strace of QEMU shows whether a flush of the image came between the two: that is
the order in which QEMU did things, so no clock is involved. Both blocks are found by
their offsets.
"""

import re

import pytest

from test_reset import until
from test_switch import set_mode
from vbw import descriptors
from vbw.machine import Config
from vbw.vm import OURS, STOCK

FIRST, SECOND = 40960, 81920


def flushed_between(log):
    """Whether QEMU flushed the image between the two writes, as strace saw it."""
    flushes = 0
    inside = False
    seen = []
    for line in log.splitlines():
        write = re.search(r"pwrite(?:64|v2?)\(.*, 4096, (\d+)|pwritev2?\(.*, (\d+)(?:, \w+)?\)", line)
        offset = int(write.group(1) or write.group(2)) if write else None
        if offset in (FIRST, SECOND):
            seen.append(offset)
            inside = offset == FIRST
        # The line of a call that was interrupted by another thread's is in two
        # parts; the second one, with the result, is the one that counts.
        if inside and re.search(r"f(data)?sync(\(\d+\)| resumed>\))\s+= 0", line):
            flushes += 1
    assert seen == [FIRST, SECOND], f"the guest's writes in strace's log: {seen}"
    return flushes > 0


def write_switch_write(vm):
    """The guest's part; every command in it has to succeed."""
    assert vm.guest(f"vbwtool write /dev/vda {FIRST} 4096 1") == "OK"
    assert set_mode(vm, "write through") == "OK"
    assert vm.guest(f"vbwtool write /dev/vda {SECOND} 4096 2") == "OK"


PAIRS = {
    # driver, stock QEMU, properties, whether the data is flushed
    "ours-and-patched-qemu": (OURS, False, {}, True),
    "ours-and-patched-qemu-without-set-wce": (OURS, False, {"set-wce": False}, True),
    "ours-and-stock-qemu": (OURS, True, {}, True),
    "stock-and-stock-qemu": (STOCK, True, {}, False),
}


def tracer(log):
    """A wrapper of QEMU that logs what it does to stable storage."""
    return ["strace", "-f", "-o", str(log), "--seccomp-bpf", "-e",
            "trace=fdatasync,fsync,pwrite64,pwritev,pwritev2"]


@pytest.mark.parametrize("driver, stock, props, flushed", PAIRS.values(), ids=PAIRS.keys())
def test_write_is_flushed_by_the_switch(boot, disk, folder, driver, stock, props, flushed):
    """Passes for our pair; the stock pair is here to show that it fails."""
    log = folder / "strace"
    vm = boot(Config(stock_qemu=stock, disks=[disk(**props)], wrapper=tracer(log)), driver=driver)
    write_switch_write(vm)
    assert vm.host_mode() == "write through"
    assert flushed_between(log.read_text()) == flushed


@pytest.mark.parametrize("stock, order", [(False, "WFWFWF"), (True, "WWFWF")], ids=["patched", "stock"])
def test_every_write_through_is_flushed(boot, disk, folder, stock, order):
    """Stock QEMU skips the flush after the first write that follows a flush.

    A write to a descriptor with O_DSYNC is its own flush.
    """
    log = folder / "strace"
    vm = boot(Config(stock_qemu=stock, disks=[disk()], wrapper=tracer(log)))
    assert set_mode(vm, "write through") == "OK"
    for number in range(3):
        assert vm.guest(f"vbwtool write /dev/vda {number * FIRST} 4096 1") == "OK"
    # There is one from the first of these writes on, if there is any.
    synchronous = descriptors.synchronous(vm)
    calls = re.findall(r"(fdatasync)(?:\(\d+\)| resumed>\))\s+= 0|pwrite64\((\d+)", log.read_text())
    assert "".join("F" if flush else "WF" if int(fd) in synchronous else "W" for flush, fd in calls) == order
    assert set_mode(vm, "write back") == "OK"
    until(lambda: not descriptors.synchronous(vm), "the image stays open with O_DSYNC")
