# SPDX-License-Identifier: GPL-2.0
"""A device that lies: a wrong value costs the request or the device, and nothing else.

The guest goes on, its kernel complains of nothing (the harness looks), what can't be is refused
when the device is probed, I/O ends with an error, and the module can be unloaded.
"""

import re
import struct

import pytest

from test_errors import write_and_verify
from test_reset import suspend, until
from test_switch import guest_view, set_mode
from vbw.testdev import machine_with
from vbw.vm import wait_for_disks

MODULE = "/vbw/virtio_blk_wce.ko"
REFUSED, WORKS = "refused", "works"
# A type of requests: VIRTIO_BLK_T_FLUSH.
FLUSH = 4
MOST = 2**64 - 1
# VIRTIO_CONFIG_S_DRIVER_OK
DRIVER_OK = 4

# Field: offset, bytes, options of the device, {value: what becomes of the disk}
FIELDS = {
    "capacity": (0, 8, [], {
        0: "empty", 2**54 - 1: WORKS, 2**54: REFUSED, 2**63: REFUSED, MOST: REFUSED}),
    "size_max": (8, 4, ["--with", "size-max"], {
        0: WORKS, 1: REFUSED, 4095: REFUSED, 4096: WORKS, 2**32 - 1: WORKS}),
    "seg_max": (12, 4, [], {0: WORKS, 1: WORKS, 2**31: WORKS, 2**32 - 1: WORKS}),
    "blk_size": (20, 4, [], {
        0: WORKS, 1: REFUSED, 3: REFUSED, 511: REFUSED, 2**31: REFUSED, 2**32 - 1: REFUSED, 4096: WORKS}),
    "physical_block_exp": (24, 1, [], {3: WORKS, 23: REFUSED, 32: REFUSED, 255: REFUSED}),
    "alignment_offset": (25, 1, [], {255: WORKS}),
    "min_io_size": (26, 2, [], {1: WORKS, 65535: WORKS}),
    "opt_io_size": (28, 4, [], {2**23: REFUSED, 2**32 - 1: REFUSED}),
    "wce": (32, 1, [], {0: WORKS, 7: WORKS, 255: WORKS}),
    "num_queues": (34, 2, [], {0: REFUSED}),
    "max_discard_sectors": (36, 4, [], {0: WORKS, 1: WORKS, 2**32 - 1: WORKS}),
    "max_discard_seg": (40, 4, [], {0: WORKS, 2**32 - 1: WORKS}),
    "discard_sector_alignment": (44, 4, [], {
        0: WORKS, 2**23: REFUSED, 2**32 - 1: REFUSED}),
    "max_write_zeroes_sectors": (48, 4, [], {0: WORKS, 1: WORKS, 2**32 - 1: WORKS}),
    "max_secure_erase_sectors": (60, 4, ["--with", "secure-erase"], {
        0: REFUSED, 1: WORKS, 2**32 - 1: WORKS}),
    "max_secure_erase_seg": (64, 4, ["--with", "secure-erase"], {0: REFUSED, 2**32 - 1: WORKS}),
    "secure_erase_sector_alignment": (68, 4, ["--with", "secure-erase"], {
        0: REFUSED, 2**32 - 1: WORKS}),
}


def log_size(vm):
    """The number of lines in the kernel's log."""
    return int(vm.guest("dmesg | wc -l"))


def driver_messages(vm, before):
    """What was said of the device since the kernel's log had that many lines."""
    lines = vm.guest(f"dmesg | tail -n +{before + 1} | cut -d']' -f2-").splitlines()
    return [line for line in lines if re.search(r"\bvirtio\d", line)]


def outcome(vm):
    """What becomes of the disk when the driver is loaded."""
    before = log_size(vm)
    disks = vm.guest(f"insmod {MODULE} && cd /sys/block && echo vd*")
    if disks == "vd*":
        said = driver_messages(vm, before)
        assert said and "probe with driver virtio_blk_wce failed with error" in said[-1]
        assert len(said) <= 3, "more words than that deserves"
        return REFUSED
    assert disks == "vda"
    if vm.guest("cat /sys/block/vda/size") == "0":
        assert vm.guest("vbwtool write /dev/vda 0 4096 1") == "ENOSPC"
        return "empty"
    write_and_verify(vm, 1 << 20, 1)
    assert vm.guest("vbwtool fsync /dev/vda") == "OK"
    return WORKS


@pytest.mark.parametrize("field", FIELDS)
def test_configuration(boot, testdev, field):
    offset, size, options, values = FIELDS[field]
    device = testdev(*options)
    vm = boot(machine_with(device), driver=None)
    sound = f"{offset}={vm_config(device)[offset:offset + size].hex()}"
    found = {}
    for value in values:
        device.config(offset, value, size)
        found[value] = outcome(vm)
        vm.guest("rmmod virtio_blk_wce")
    assert found == values
    device.tell(f"config {sound}")
    assert outcome(vm) == WORKS, "the device has recovered"


def vm_config(device):
    """The configuration space as it is now."""
    return bytes.fromhex(device.tell("show"))


@pytest.fixture
def hostile(boot, testdev):
    """A machine with a device that is sound so far, and the driver."""

    def start(*options, queues=1, **more):
        device = testdev(*options, queues=queues)
        vm = boot(machine_with(device, **more))
        vm.guest(wait_for_disks(1))
        write_and_verify(vm, 0, 1)
        return vm, device

    return start


def unload(vm):
    """The module goes, in finite time."""
    vm.guest.start("rmmod virtio_blk_wce").wait(20)
    assert vm.guest.run("grep -q virtio_blk_wce /proc/modules", check=False).status != 0


def read_one(vm, seed=1):
    """One read, in finite time; OK or the error's name."""
    return vm.guest.start(f"vbwtool verify /dev/vda 0 65536 {seed}").wait(20).text


@pytest.mark.parametrize("what", ["status-unknown", "status-missing"])
def test_request_fails(hostile, what):
    """Only the request, and only as long as the device does that."""
    vm, device = hostile()
    device.misbehave(what)
    for _ in range(20):
        assert read_one(vm) == "EIO"
    assert vm.guest("vbwtool write /dev/vda 1048576 4096 1") == "EIO"
    assert vm.guest("vbwtool fsync /dev/vda") == "EIO"
    assert device.count(what) >= 22
    device.behave()
    write_and_verify(vm, 0, 2)
    unload(vm)


def test_length_means_nothing(hostile):
    """What the device claims to have written is not what the driver relies on."""
    vm, device = hostile()
    device.misbehave("used-length")
    write_and_verify(vm, 0, 2)
    assert vm.guest("vbwtool fsync /dev/vda") == "OK"
    assert device.count("used-length") > 2
    device.behave()
    write_and_verify(vm, 0, 3)
    unload(vm)


@pytest.mark.parametrize("what", ["used-id-range", "used-id-free", "used-twice", "used-index"])
def test_ring_is_not_believed(hostile, what):
    """The device is lost, for good: what it owes and what comes later ends with an error."""
    vm, device = hostile()
    before = log_size(vm)
    device.misbehave(what)
    first = read_one(vm)
    device.behave()
    assert device.count(what) == 1
    # A request that the ring named rightly before it went wrong may have succeeded.
    assert first == "EIO" or what in ("used-twice", "used-index") and first == "OK"
    assert read_one(vm) == "EIO"
    assert vm.guest("vbwtool write /dev/vda 0 4096 1") == "EIO"
    assert set_mode(vm, "write through") == "ENODEV"
    said = driver_messages(vm, before)
    assert 1 <= len(said) <= 3, said
    unload(vm)


def test_system_sleeps_with_a_device_that_is_given_up(hostile):
    """It stays given up, and is bound again as one that works."""
    vm, device = hostile(serial=True)
    device.misbehave("used-id-free:1")
    assert read_one(vm) == "EIO"
    suspend(vm)
    assert read_one(vm) == "EIO"
    unload(vm)
    assert outcome(vm) == WORKS
    unload(vm)


def poller(boot, testdev):
    """A machine with a device that is sound so far, and a command that reads from it by polling."""
    device = testdev(queues=2)
    vm = boot(machine_with(device, cpus=2), params="poll_queues=1")
    vm.guest(wait_for_disks(1))
    assert "1/0/1 default/read/poll queues" in vm.guest("dmesg")
    poll = "fio --name=x --filename=/dev/vda --size=8m --bs=4k --direct=1 --ioengine=io_uring " \
           "--hipri=1 --rw=randread --number_ios=10 --output=/run/fio.out"
    vm.guest(poll)
    return vm, device, poll


@pytest.mark.parametrize("what", ["status-unknown", "status-missing"])
def test_polled_request_fails(boot, testdev, what):
    """A request that has failed is not ended together with those that have not."""
    vm, device, poll = poller(boot, testdev)
    device.misbehave(what)
    job = vm.guest.start(f"{poll}; cat /run/fio.out").wait(30)
    assert device.count(what) >= 1
    assert "Input/output error" in job.text
    device.behave()
    vm.guest(poll)
    unload(vm)


@pytest.mark.parametrize("what", ["used-id-range", "used-id-free", "used-index"])
def test_polled_ring_is_not_believed(boot, testdev, what):
    """No interrupt tells of it: who polls has to find out, or polls for ever."""
    vm, device, poll = poller(boot, testdev)
    device.misbehave(f"{what}:1")
    job = vm.guest.start(f"{poll}; cat /run/fio.out").wait(30)
    assert device.count(what) == 1
    assert "Input/output error" in job.text
    vm.guest.until("dmesg | grep -q 'is given up'")
    assert read_one(vm) == "EIO"
    assert set_mode(vm, "write through") == "ENODEV"
    unload(vm)


def test_no_answer(hostile):
    """Only who waits for it waits; and unbinding, which waits for what is under way."""
    vm, device = hostile(queues=2)
    device.misbehave("no-answer:1")
    reader = vm.guest.start("vbwtool verify /dev/vda 0 65536 1")
    vm.guest.until("[ \"$(cat /sys/block/vda/inflight | tr -s ' ' | cut -d' ' -f2)\" = 1 ]")
    assert device.count("no-answer") == 1
    write_and_verify(vm, 65536, 2)
    assert guest_view(vm)[0] == "write back"
    remover = vm.guest.start("basename $(readlink -f /sys/block/vda/device) "
                             "> /sys/bus/virtio/drivers/virtio_blk_wce/unbind")
    # Taking the driver away begins with the attributes.
    vm.guest.until("[ $(vbwtool set /sys/block/vda/cache_type 'write back') = ENODEV ]")
    assert reader.running() and remover.running()
    assert device.release() == 1
    assert reader.wait(20).text == "OK"
    assert remover.wait(20).status == 0


def test_no_answer_ever(hostile, env):
    """A device that answers nothing for half a minute, while it is unbound, is given up."""
    vm, device = hostile()
    device.misbehave("no-answer")
    reader = vm.guest.start("vbwtool verify /dev/vda 0 65536 1")
    vm.guest.until("[ \"$(cat /sys/block/vda/inflight | tr -s ' ' | cut -d' ' -f2)\" = 1 ]")
    remover = vm.guest.start("basename $(readlink -f /sys/block/vda/device) "
                             "> /sys/bus/virtio/drivers/virtio_blk_wce/unbind")
    assert reader.wait(60 * env.patience).text == "EIO"
    assert remover.wait(20).status == 0
    assert "is given up" in vm.guest("dmesg")
    vm.guest("rmmod virtio_blk_wce")


def test_no_answer_before_reset(hostile):
    """The switch's writer is freed when the device is reset without an answer."""
    vm, device = hostile()
    device.misbehave("no-answer:1")
    writer = vm.guest.start("vbwtool set /sys/block/vda/cache_type 'write through'")
    status = "/sys/block/vda/cache_type_status"
    assert vm.guest(f"vbwtool wait {status} 'pending write through' 10") == "OK"
    unload(vm)
    assert writer.wait(20).text == "ENODEV"


def test_serial_without_end(hostile):
    vm, device = hostile()
    device.misbehave("id-endless")
    assert vm.guest("cat /sys/block/vda/serial") == 20 * "x"
    assert device.count("id-endless") == 1
    unload(vm)


def in_driver(vm, number):
    """Wait until so many processes wait in the driver."""
    vm.guest.until(f"[ $(grep -ls virtio_blk_wce /proc/[0-9]*/stack | wc -l) -eq {number} ]")


def test_readers_of_serial_who_give_up(hostile):
    """Whom the device keeps waiting, and who waits for that one: both can be ended, and the answer is for neither."""
    vm, device = hostile()
    read = "cat /sys/block/vda/serial"
    device.misbehave("no-answer:1")
    asks = vm.guest.start(read)
    until(lambda: device.count("no-answer") == 1, "the device is not asked")
    waits = vm.guest.start(read)
    in_driver(vm, 2)
    waits.signal("KILL")
    in_driver(vm, 1)
    asks.signal("KILL")
    in_driver(vm, 0)
    last = vm.guest.start(read)
    in_driver(vm, 1)
    assert last.running() and device.count("no-answer") == 1, "it has to wait for an answer that nobody wants"
    device.release()
    assert last.wait(20).text == "vbw-testdev"
    unload(vm)


@pytest.mark.parametrize("what, word", [("wce-status", "EIO"), ("wce-ignored", "EIO")])
def test_switch_is_not_believed(hostile, what, word):
    """Whatever the device says, flushes are sent as long as its cache may be volatile."""
    vm, device = hostile()
    device.misbehave(what)
    assert set_mode(vm, "write through") == word
    assert device.count(what) == 1
    shown = "write back" if vm_config(device)[32] else "write through"
    assert guest_view(vm) == [shown, "write back", f"error write through {word}"]
    before = device.requests(FLUSH)
    assert vm.guest("vbwtool write /dev/vda 0 4096 1 && vbwtool fsync /dev/vda") == "OK\nOK"
    assert device.requests(FLUSH) - before == 1
    device.behave()
    for mode in ("write through", "write back"):
        assert set_mode(vm, mode) == "OK"
        assert guest_view(vm) == [mode, "write back", f"ok {mode}"]
    write_and_verify(vm, 0, 2)
    unload(vm)


def test_capacity_that_changes(boot, testdev):
    """The disk has the size that the driver has read, whatever the device says later."""
    device = testdev("--misbehave", "capacity-wobbles")
    vm = boot(machine_with(device), driver=None)
    for _ in range(8):
        assert outcome(vm) in (WORKS, "empty")
        size = vm.guest("cat /sys/block/vda/size")
        assert vm.guest("cat /sys/block/vda/size") == size
        vm.guest("rmmod virtio_blk_wce")


def test_ring_breaks_while_the_driver_starts(boot, testdev, folder):
    """The driver resets a device that it gives up, and the core marks a device as ready whose driver has started. If a
    device is reset before that it is ready without a driver, and if the mark comes before the driver has seen that the
    reset has ended it waits for ever."""
    image = folder / "image"
    with image.open("wb") as file:
        # An extended partition, which has a table of its own: it can't be read any more.
        file.write(bytes(446) + struct.pack("<8B2I", 0, 0, 0, 0, 5, 0, 0, 0, 2048, 2048) + bytes(48) + b"\x55\xaa")
        file.truncate(64 << 20)
    device = testdev("--file", str(image), "--misbehave", "used-twice")
    vm = boot(machine_with(device), driver=None)
    for number in range(3):
        assert vm.guest(f"insmod {MODULE} && cd /sys/block && echo vd*") == "vd*"
        assert not int(vm.guest("cat /sys/bus/virtio/devices/virtio0/status"), 16) & DRIVER_OK
        assert device.count("used-twice") > number
        unload(vm)
    device.behave()
    assert outcome(vm) == WORKS
    unload(vm)
