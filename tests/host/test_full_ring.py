# SPDX-License-Identifier: GPL-2.0
"""A ring without room: what waits for it, and what becomes of that when there is room again.

The test device keeps requests until it is told to release them, and counts their descriptors, so that
the ring is known to be full.
"""

import pytest

from test_hostile import in_driver
from test_reset import until
from test_switch import set_mode
from vbw.testdev import machine_with
from vbw.vm import wait_for_disks

SYS = "/sys/block/vda"
OUT, FLUSH = 1, 4
RING = 1024
# As many as there are tags: all of them are on their way before the first one is answered.
READS = 512
# BLK_MAX_REQUEST_COUNT: so many are handed over in one list.
PLUGGED = 32


@pytest.fixture
def full_ring(boot, testdev):
    """Fill the ring of a device without indirect descriptors with requests that it keeps."""

    def start(keep, *fio, scheduler="none"):
        device = testdev("--without", "indirect")
        vm = boot(machine_with(device))
        vm.guest(wait_for_disks(1))
        if scheduler != "none":
            # In some kernels it is built in.
            vm.guest(f"grep -q {scheduler} {SYS}/queue/scheduler || insmod /lib/modules/{scheduler}.ko")
        vm.guest(f"echo 2 > {SYS}/queue/nomerges; echo {scheduler} > {SYS}/queue/scheduler")
        # A scheduler has tags of its own, which are fewer than the ring takes.
        vm.guest(f"echo {READS} > {SYS}/queue/nr_requests")
        device.misbehave(keep)
        load = vm.guest.start(
            "fio --name=load --filename=/dev/vda --size=16m --bs=4k --direct=1 --ioengine=libaio "
            f"--iodepth=512 --norandommap --output=/run/fio.out {' '.join(fio)}")
        vm.guest.until("grep -qs STOPPED /sys/kernel/debug/block/vda/hctx0/state", 30)
        size, held = device.ring()
        # Each has a header, a page and a status.
        assert size == RING and size - held < 3, "the ring is not full"
        return vm, device, load

    return start


def ended(vm, load):
    """The load has ended without an error."""
    assert load.wait(120).status == 0
    assert vm.guest("grep -c 'err= 0' /run/fio.out") == "1"


def test_all_commands_that_wait_are_sent(full_ring):
    """A request to switch and one for the serial number wait, and one interrupt tells of all the room."""
    vm, device, load = full_ring("no-answer", "--rw=randread", f"--number_ios={READS}")
    switch = vm.guest.start(f"vbwtool set {SYS}/cache_type 'write through'")
    serial = vm.guest.start(f"cat {SYS}/serial")
    in_driver(vm, 2)
    assert switch.running() and serial.running(), "both wait in the driver"
    device.release()
    # All that is released is kept again, so that no answer to the one brings the other one on its way.
    until(lambda: device.count("no-answer") == READS + 2, "not all that waited was sent")
    device.behave()
    device.release()
    assert switch.wait().text == "OK"
    assert serial.wait().text == "vbw-testdev"
    ended(vm, load)


def test_a_scheduler_s_list_is_longer_than_the_room(full_ring):
    """The block layer calls commit_rqs() for what it handed over before the request that found no room."""
    vm, device, load = full_ring("no-answer", "--rw=randread", f"--number_ios={READS}", "--iodepth_batch=512",
                                 scheduler="mq-deadline")
    rest = vm.guest("cat /sys/kernel/debug/block/vda/hctx0/dispatch").splitlines()
    assert 1 < len(rest) < PLUGGED, "no list of several ended early"
    device.behave()
    device.release()
    ended(vm, load)


def test_flushes_of_writes_that_fill_the_ring(full_ring):
    """The room of the writes is taken by their flush before other requests can have it."""
    vm, device, load = full_ring("write-kept", "--rw=randwrite", "--sync=dsync", "--number_ios=1024")
    before = device.requests(OUT), device.requests(FLUSH)
    device.behave()
    device.release()
    ended(vm, load)
    writes, flushes = device.requests(OUT) - before[0], device.requests(FLUSH) - before[1]
    assert writes >= 1024
    # A third of them were answered together; how many of the others are is a matter of time.
    assert 0 < flushes < writes / 2


def test_the_mode_changes_while_the_ring_is_full(full_ring):
    """Writes were handed over in write back, and some are in the ring when the device agrees."""
    vm, device, load = full_ring("write-kept:400", "--rw=randwrite", "--sync=dsync", "--number_ios=1024")
    switch = vm.guest.start(f"vbwtool set {SYS}/cache_type 'write through'")
    device.behave()
    device.release()
    assert switch.wait().text == "OK"
    ended(vm, load)
    before = device.requests(FLUSH)
    assert vm.guest("vbwtool dsync /dev/vda 0 4096 1") == "OK"
    assert device.requests(FLUSH) == before
    assert set_mode(vm, "write back") == "OK"
