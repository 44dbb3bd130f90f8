# SPDX-License-Identifier: GPL-2.0
"""Flushes are decided where a request is handled, whatever becomes of it before that.

The test device counts the requests that it executes, and keeps writes or flushes back until it is
told to release them, so that what happens in between is no matter of luck.
"""

import pytest

from test_errors import write_and_verify
from test_flushes import flushes_of
from test_reset import until
from test_switch import expect, set_mode
from vbw.machine import Config
from vbw.testdev import machine_with
from vbw.vm import wait_for_disks

SYS = "/sys/block/vda"
OUT, FLUSH, SET_WCE = 1, 4, 33
DSYNC = "vbwtool dsync /dev/vda 65536 4096 7"


def in_flight(vm, number):
    """Wait until so many requests of the disk are with the device, or wait for it."""
    vm.guest.until(f"[ $(awk '{{ print $1 + $2 }}' {SYS}/inflight) -eq {number} ]")


@pytest.fixture
def machine(boot, testdev):
    """A machine with a test device, in the given mode."""

    def start(mode, *options, queues=1, **more):
        device = testdev(*options, queues=queues)
        vm = boot(machine_with(device, **more), params="poll_queues=1" if queues > 1 else "")
        vm.guest(wait_for_disks(1))
        assert set_mode(vm, mode) == "OK"
        return vm, device

    return start


def executed(device, vm, command):
    """How many writes and flushes the device executes during a command."""
    before = device.requests(OUT), device.requests(FLUSH)
    assert vm.guest(command) == "OK"
    return device.requests(OUT) - before[0], device.requests(FLUSH) - before[1]


@pytest.mark.parametrize("mode, flushes", [("write back", 1), ("write through", 0)])
def test_one_write(machine, mode, flushes):
    """A write with FUA is a write, and in write back a flush after it."""
    vm, device = machine(mode)
    assert vm.guest(f"cat {SYS}/queue/fua {SYS}/queue/write_cache") == "1\nwrite back"
    for _ in range(3):
        assert executed(device, vm, DSYNC) == (1, flushes)
    assert vm.guest("vbwtool verify /dev/vda 65536 4096 7") == "OK"


def test_handed_over_before_the_switch(machine):
    """A write that the device got in write through and completes in write back is flushed."""
    vm, device = machine("write through")
    before = device.requests(FLUSH)
    device.misbehave("write-kept:1")
    job = vm.guest.start(DSYNC)
    in_flight(vm, 1)
    assert set_mode(vm, "write back") == "OK"
    device.misbehave("flush-kept:1")
    assert device.release() == 1
    until(lambda: device.count("flush-kept") == 1, "no flush comes")
    assert job.running(), "the write has ended without its flush"
    assert device.release() == 1
    assert job.wait().text == "OK"
    assert device.requests(FLUSH) - before == 1


def test_handed_over_before_the_other_switch(machine):
    """A write that is completed in write through needs no flush, wherever it began."""
    vm, device = machine("write back")
    before = device.requests(FLUSH)
    device.misbehave("write-kept:1")
    job = vm.guest.start(DSYNC)
    in_flight(vm, 1)
    assert set_mode(vm, "write through") == "OK"
    assert device.release() == 1
    assert job.wait().text == "OK"
    assert device.requests(FLUSH) == before


def test_those_that_wait_share_the_next_flush(machine):
    """While a flush is under way eight writes end; one more flush is for all of them."""
    vm, device = machine("write back")
    before = device.requests(FLUSH)
    device.misbehave("flush-kept:1")
    jobs = [vm.guest.start(DSYNC)]
    until(lambda: device.count("flush-kept") == 1, "no flush comes")
    writes = device.requests(OUT)
    jobs += [vm.guest.start(f"vbwtool dsync /dev/vda {at << 20} 4096 {at}") for at in range(1, 9)]
    until(lambda: device.requests(OUT) - writes == 8, "the device does not get the writes")
    assert all(job.running() for job in jobs)
    assert device.requests(FLUSH) == before, "the flush that is kept is the only one"
    assert device.release() == 1
    for job in jobs:
        assert job.wait().text == "OK"
    assert device.requests(FLUSH) - before == 2


@pytest.mark.parametrize("quirk", ["flush-fails", "flush-unknown"])
def test_a_flush_that_fails(machine, quirk):
    """The write whose flush it was fails, and the following one has another."""
    vm, device = machine("write back")
    device.misbehave(f"{quirk}:1")
    assert vm.guest(DSYNC) == "EIO"
    assert device.count(quirk) == 1
    assert executed(device, vm, DSYNC) == (1, 1)


def test_a_write_that_fails(machine):
    """A write that the device did not do is not flushed, and fails."""
    vm, device = machine("write back")
    device.misbehave("status-unknown:1")
    before = device.requests(FLUSH)
    assert vm.guest(DSYNC) == "EIO"
    assert device.count("status-unknown") == 1
    assert device.requests(FLUSH) == before


def test_given_up_between_write_and_flush(machine):
    """The device breaks its ring while a write waits for its flush, and others for the next one."""
    vm, device = machine("write back")
    device.misbehave("flush-kept:1")
    jobs = [vm.guest.start(DSYNC)]
    until(lambda: device.count("flush-kept") == 1, "no flush comes")
    writes = device.requests(OUT)
    jobs += [vm.guest.start(f"vbwtool dsync /dev/vda {at << 20} 4096 {at}") for at in range(1, 4)]
    until(lambda: device.requests(OUT) - writes == 3, "the device does not get the writes")
    assert all(job.running() for job in jobs)
    device.misbehave("used-id-range:1")
    assert vm.guest("vbwtool verify /dev/vda 0 4096 1") == "EIO"
    for job in jobs:
        assert job.wait().text == "EIO"


def test_polled(machine):
    """A queue without interrupts has its flushes sent and answered by who polls."""
    vm, device = machine("write back", queues=2, cpus=2)
    before = device.requests(OUT), device.requests(FLUSH)
    vm.guest("fio --name=polled --filename=/dev/vda --size=8m --rw=randwrite --bs=4k --direct=1 --sync=dsync "
             "--ioengine=io_uring --hipri=1 --iodepth=8 --number_ios=400 --output=/run/fio.out")
    assert "err= 0" in vm.guest("cat /run/fio.out")
    writes, flushes = device.requests(OUT) - before[0], device.requests(FLUSH) - before[1]
    assert writes >= 400
    assert writes / 8 <= flushes < writes


@pytest.mark.parametrize("queues", [1, 2])
def test_deep_queues_share_flushes(boot, disk, queues):
    """Two thousand writes with FUA, 32 at a time, share flushes; in write through there are none."""
    vm = boot(Config(disks=[disk(**{"num-queues": queues})]))
    command = ("fio --name=deep --filename=/dev/vda --size=16m --rw=randwrite --bs=4k --direct=1 --sync=dsync "
               "--ioengine=libaio --iodepth=32 --norandommap --number_ios=2000 --output=/run/fio.out "
               "&& grep -q 'err= 0' /run/fio.out")
    writes = vm.host_stats()["wr_operations"]
    flushes = flushes_of(vm, command)
    writes = vm.host_stats()["wr_operations"] - writes
    assert writes >= 2000
    assert 0 < flushes < writes / 2
    assert set_mode(vm, "write through") == "OK"
    assert flushes_of(vm, command) == 0


def test_cache_type_decides(boot, disk):
    """What was written by hand into queue/write_cache before does not outlive a switch."""
    vm = boot(Config(disks=[disk()]))
    command = "vbwtool write /dev/vda 0 4096 1 && vbwtool fsync /dev/vda"
    for mode in ("write back", "write through", "write back"):
        vm.guest(f"echo 'write through' > {SYS}/queue/write_cache")
        assert flushes_of(vm, command) == 0, "the block layer drops flushes by itself"
        assert set_mode(vm, mode) == "OK"
        expect(vm, mode, f"ok {mode}")
        assert flushes_of(vm, command) == (1 if mode == "write back" else 0)


def test_a_rule_that_sets_the_mode_rests(boot, disk):
    """Whoever writes the mode at every event is not woken up by that again."""
    vm = boot(Config(disks=[disk()]))
    vm.guest(": > /run/events; uevent sh -c '[ \"$DEVNAME\" != vda ] || echo \"$ACTION\" >> /run/events' "
             "> /dev/null 2>&1 & true")

    def events():
        """How many there were, the one included that this makes to see those before it."""
        marks = int(vm.guest("grep -c add /run/events || true"))
        vm.guest(f"n=0; echo add > {SYS}/uevent; "
                 f"until [ $(grep -c add /run/events) -gt {marks} ]; do "
                 "n=$((n + 1)); [ $n -lt 250 ] || exit 1; usleep 20000; done")
        return int(vm.guest("grep -c change /run/events || true"))

    # The listener listens when it has seen a mark.
    vm.guest(f"n=0; until grep -q add /run/events; do echo add > {SYS}/uevent; n=$((n + 1)); "
             "[ $n -lt 250 ] || exit 1; usleep 20000; done")
    for mode in ("write back", "write through"):
        assert set_mode(vm, mode) == "OK"
        before = events()
        for _ in range(5):
            assert set_mode(vm, mode) == "OK"
        assert events() == before, f"{mode}: nothing has changed"
    assert before >= 2, "changes are told"


def poller(vm, text, seconds):
    """Who waits for a status, and has begun to."""
    job = vm.guest.start(f"exec vbwtool wait {SYS}/cache_type_status '{text}' {seconds}")
    vm.guest.until("grep -q poll /proc/[0-9]*/wchan", 5)
    return job


def test_a_request_for_another_mode_is_told(machine):
    """Who polls the status is woken when such a request begins to wait, not only when it is over."""
    vm, device = machine("write back")
    waiting = poller(vm, "pending write through", 20)
    device.misbehave("no-answer")
    switch = vm.guest.start(f"vbwtool set {SYS}/cache_type 'write through'")
    assert waiting.wait().text == "OK"
    assert switch.running()
    device.behave()
    assert device.release() == 1
    assert switch.wait().text == "OK"


def test_a_rule_rests_although_the_switch_fails(boot, image):
    from vbw.machine import Disk, flush_fails_node
    vm = boot(Config(disks=[Disk(flush_fails_node(image, once=False))]))
    write_and_verify(vm, 0, 1)
    first = poller(vm, "error write through EIO", 20)
    assert set_mode(vm, "write through") == "EIO"
    assert first.wait().text == "OK"
    # What follows wakes nobody: there would be a moment to see that a request is pending.
    second = poller(vm, "pending write through", 2)
    for _ in range(3):
        assert set_mode(vm, "write through") == "EIO"
    assert second.wait().text == "ETIMEDOUT"
    assert vm.guest(f"cat {SYS}/cache_type_status") == "error write through EIO"
