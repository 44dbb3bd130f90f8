# SPDX-License-Identifier: GPL-2.0
"""Host-managed zones, with the kernel's own driver and with ours."""

import pytest

from prove import guestfiles
from test_hostile import driver_messages, log_size
from vbw.testdev import machine_with
from vbw.vm import OURS, STOCK, wait_for_disks

SYS = "/sys/block/vda/queue"
ZONE = 8192          # sectors
CAPACITY = 6144      # of them
ZONES = 16
ZONE_APPEND = 15     # VIRTIO_BLK_T_ZONE_APPEND
CONVENTIONAL = 2
FIRST = CONVENTIONAL * ZONE
SHAPE = ("--zones", str(ZONE), "--zone-capacity", str(CAPACITY), "--conventional", str(CONVENTIONAL),
         "--max-open", "4", "--max-active", "6", "--max-append", "128", "--granularity", "4096")

DRIVERS = pytest.mark.parametrize("driver", [STOCK, OURS])


@pytest.fixture
def zoned(boot, testdev):
    """Start a machine with a zoned disk and a driver."""

    def start(driver):
        device = testdev(*SHAPE)
        vm = boot(machine_with(device), driver=driver)
        vm.guest(wait_for_disks(1))
        return vm, device

    return start


def report(vm, sector=0, zones=ZONES):
    """The zones, each as (start, written sectors, condition)."""
    *lines, last = vm.guest(f"zonetool report /dev/vda {sector} {zones}").splitlines()
    assert last == "OK"
    found = []
    for line in lines:
        start, length, capacity, written, kind, condition = line.split()
        sequential = int(start) >= FIRST
        assert (int(length), int(capacity)) == (ZONE, CAPACITY if sequential else ZONE)
        assert kind == ("sequential" if sequential else "conventional")
        found.append((int(start), int(written), condition))
    return found


def zone(vm, sector):
    """One zone."""
    (start, written, condition), = report(vm, sector, 1)
    assert start == sector
    return written, condition


def write(vm, sector, sectors=8, seed=1):
    """One direct write; OK or the error's name."""
    return vm.guest(f"vbwtool write /dev/vda {sector * 512} {sectors * 512} {seed}")


def manage(vm, what, sector, sectors=ZONE):
    """What zonetool can do with zones; OK or the error's name."""
    return vm.guest(f"zonetool {what} /dev/vda {sector} {sectors}")


@DRIVERS
def test_attributes(zoned, driver):
    vm, _ = zoned(driver)
    names = ("zoned", "nr_zones", "chunk_sectors", "max_open_zones", "max_active_zones",
             "zone_append_max_bytes", "zone_write_granularity", "discard_max_bytes")
    values = vm.guest(f"cd {SYS} && cat {' '.join(names)}").splitlines()
    assert dict(zip(names, values)) == {
        "zoned": "host-managed", "nr_zones": str(ZONES), "chunk_sectors": str(ZONE),
        "max_open_zones": "4", "max_active_zones": "6", "zone_append_max_bytes": "65536",
        "zone_write_granularity": "4096", "discard_max_bytes": "0"}


@DRIVERS
def test_report(zoned, driver):
    vm, _ = zoned(driver)
    empty = [(index * ZONE, 0, "none" if index < CONVENTIONAL else "empty")
             for index in range(ZONES)]
    assert report(vm) == empty
    assert report(vm, 3 * ZONE + 5, 2) == empty[3:5], "from the zone that the sector is in"
    assert report(vm, (ZONES - 1) * ZONE, 9) == empty[-1:]


@DRIVERS
def test_writes(zoned, driver):
    vm, _ = zoned(driver)
    assert write(vm, 80) == "OK", "anywhere in a conventional zone"
    for number in range(4):
        assert write(vm, FIRST + 8 * number, seed=number) == "OK"
        assert zone(vm, FIRST) == (8 * (number + 1), "implicit")
    for number in range(4):
        where = (FIRST + 8 * number) * 512
        assert vm.guest(f"vbwtool verify /dev/vda {where} 4096 {number}") == "OK"
    for wrong in (FIRST, FIRST + 64, FIRST + ZONE + 8):
        assert write(vm, wrong) == "EIO"
    assert zone(vm, FIRST) == (32, "implicit")
    assert write(vm, FIRST + 32) == "OK", "it goes on where it was"
    assert write(vm, FIRST + CAPACITY - 8) == "EIO"


@DRIVERS
def test_management(zoned, driver):
    vm, _ = zoned(driver)
    second = FIRST + ZONE
    assert manage(vm, "open", FIRST) == "OK"
    assert zone(vm, FIRST) == (0, "explicit")
    assert manage(vm, "close", FIRST) == "OK"
    assert zone(vm, FIRST) == (0, "empty")
    assert write(vm, FIRST) == "OK"
    assert manage(vm, "close", FIRST) == "OK"
    assert zone(vm, FIRST) == (8, "closed")
    assert manage(vm, "finish", FIRST) == "OK"
    assert zone(vm, FIRST)[1] == "full"
    assert write(vm, FIRST + 8) == "EIO"
    assert write(vm, second) == "OK"
    assert manage(vm, "reset", FIRST) == "OK"
    assert zone(vm, FIRST) == (0, "empty")
    assert zone(vm, second) == (8, "implicit")
    assert manage(vm, "reset", 0) == "EIO", "a conventional zone"
    assert write(vm, FIRST, seed=9) == "OK"


@DRIVERS
def test_reset_all(zoned, driver):
    vm, _ = zoned(driver)
    for index in range(CONVENTIONAL, CONVENTIONAL + 4):
        assert write(vm, index * ZONE) == "OK"
    assert manage(vm, "reset", 0, ZONES * ZONE) == "OK"
    assert {condition for _, _, condition in report(vm)} == {"none", "empty"}
    assert write(vm, FIRST) == "OK"


@DRIVERS
def test_limits_of_open_zones(zoned, driver):
    vm, _ = zoned(driver)
    sequential = [index * ZONE for index in range(CONVENTIONAL, ZONES)]
    for sector in sequential[:4]:
        assert manage(vm, "open", sector) == "OK"
    assert manage(vm, "open", sequential[4]) == "ETOOMANYREFS"
    for sector in sequential[:4]:
        assert write(vm, sector) == "OK"
        assert manage(vm, "close", sector) == "OK"
    for sector in sequential[4:6]:
        assert manage(vm, "open", sector) == "OK"
    assert manage(vm, "open", sequential[6]) == "EOVERFLOW"


@DRIVERS
def test_fio(zoned, driver):
    """Several zones, in random order, several requests at a time; all of it verified."""
    vm, _ = zoned(driver)
    output = vm.guest.run(
        f"fio --name=zones --filename=/dev/vda --zonemode=zbd --offset={FIRST * 512} --size=24m "
        "--rw=randwrite --bs=16k --direct=1 --ioengine=libaio --iodepth=8 --max_open_zones=4 "
        "--verify=crc32c --verify_fatal=1", 120)
    assert "err= 0" in output.text
    assert any(written for _, written, _ in report(vm))


@pytest.mark.stock_kernel("btrfs is a module of the distribution's kernel")
@pytest.mark.pinned_kernel("btrfs is a module of the pinned kernel")
@DRIVERS
def test_append(env, boot, testdev, driver):
    """btrfs appends, and takes from the answer where its data is: it is found there, also after a new mount."""
    device = testdev("--zones", str(ZONE), "--conventional", str(CONVENTIONAL), "--max-append", "128",
                     "--granularity", "4096")
    programs = guestfiles.build(env, ["/usr/sbin/mkfs.btrfs"], ["btrfs"])
    vm = boot(machine_with(device, initrd=programs), driver=driver)
    vm.guest(wait_for_disks(1))
    vm.guest(guestfiles.load_modules(env, ["btrfs"]))
    vm.guest("/usr/sbin/mkfs.btrfs -q -O zoned -m single -d single /dev/vda && mkdir /run/fs && "
             "mount -t btrfs /dev/vda /run/fs", 120)
    for number in range(3):
        for file in range(1, 5):
            vm.guest(f"seq {file}{number}000 {file}{number}999 > /run/fs/{file}.{number}")
        vm.guest("sync -f /run/fs")
    assert device.requests(ZONE_APPEND) >= 12, "files were not appended to zones"
    vm.guest("umount /run/fs && mount -t btrfs /dev/vda /run/fs", 60)
    for number in range(3):
        for file in range(1, 5):
            vm.guest(f"seq {file}{number}000 {file}{number}999 | cmp - /run/fs/{file}.{number}")


WRONG_REPORTS = ["zones-none", "zone-type", "zone-state", "zone-beyond", "zone-stuck",
                 "zone-overflow", "zone-pointer", "zone-capacity"]


@pytest.mark.parametrize("what", WRONG_REPORTS)
def test_wrong_report(boot, testdev, what):
    """The disk is not there, or has no size; the driver does not go on asking for ever."""
    device = testdev(*SHAPE, "--misbehave", what)
    vm = boot(machine_with(device), driver=None)
    before = log_size(vm)
    vm.guest("insmod /vbw/virtio_blk_wce.ko", 30)
    assert device.count(what) >= 1
    size = vm.guest("cat /sys/block/vda/size 2>/dev/null || echo 0")
    assert size == "0"
    assert len(driver_messages(vm, before)) <= 12
    device.behave()
    vm.guest("rmmod virtio_blk_wce && insmod /vbw/virtio_blk_wce.ko")
    assert len(report(vm)) == ZONES


def test_huge_report(zoned):
    """More zones than there is room for: what is there is taken."""
    vm, device = zoned(OURS)
    device.misbehave("zones-huge")
    assert len(report(vm)) == ZONES
    assert device.count("zones-huge") >= 1


# Field: offset and values that can't be
ZONE_FIELDS = {
    "zone_sectors": (72, (0, 3, 8191, 2**31, 2**32 - 1)),
    # The kernel's own driver passes these on, and the kernel stops by a BUG() in mempool_init_node().
    "max_open_zones": (76, (2**31, 2**32 - 1)),
    "max_active_zones": (80, (2**31, 0x95000004)),
    "max_append_sectors": (84, (0, 4)),
    "write_granularity": (88, (0, 3, 2**32 - 1)),
    # The number of zones; the kernel warns of the memory that it wants for them.
    "capacity": (4, (0x10, 0x3fffff)),
}


@pytest.mark.parametrize("field", ZONE_FIELDS)
def test_wrong_configuration(boot, testdev, field):
    """The disk is refused."""
    offset, values = ZONE_FIELDS[field]
    device = testdev(*SHAPE)
    vm = boot(machine_with(device), driver=None)
    for value in values:
        device.config(offset, value, 4)
        assert vm.guest("insmod /vbw/virtio_blk_wce.ko && cd /sys/block && echo vd*") == "vd*", value
        vm.guest("rmmod virtio_blk_wce")
