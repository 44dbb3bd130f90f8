# SPDX-License-Identifier: GPL-2.0
"""Linux tells an open file of an error of write-back once, whoever asks.

With several buffered O_DSYNC writes in flight on one descriptor, one write can take the error of
another, and the one that has failed returns success. This is why the device writes with O_DSYNC
only when a write is alone; Documentation/fua-by-dsync.rst is about it. A device that fails in a part,
with and without a file system, is made in a guest, with the stock kernel.
"""

import lzma
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from vbw import cpio, initrd
from vbw.machine import Config
from vbw.vm import VM

pytestmark = pytest.mark.stock_kernel("the debug kernel has no null_blk")

MODULES = ("fs/configfs/configfs", "drivers/block/null_blk/null_blk")
MIB = 1 << 20
SIZE_MIB = 64
FAILING = 24 * MIB
BLOCKS = 256
NULLB = "/sys/kernel/config/nullb/nullb0"
# Of a device that fails, the kernel tells.
TOLERATED = r"Buffer I/O error|I/O error, dev nullb|lost async page write|errors=|without journal"
WRITES = 600


@dataclass
class Result:
    """How many writes were reported as done or as failed, at sound and at failing places."""

    sound_done: int
    sound_failed: int
    lies: int
    failed: int


@pytest.fixture
def guest(env, folder, boot):
    """A guest that has a device in memory, every block of which is sound."""
    archive = cpio.Archive()
    for module in MODULES:
        packed = Path(f"/usr/lib/modules/{env.release}/kernel/{module}.ko.xz")
        archive.add(f"modules/{packed.stem}", lzma.decompress(packed.read_bytes()))
    base = initrd.build(env).read_bytes()
    path = folder / "initrd"
    path.write_bytes(base + bytes(-len(base) % 4) + archive.finish())
    vm: VM = boot(Config(initrd=path, tolerated=TOLERATED))
    path.unlink()
    vm.guest("insmod /modules/configfs.ko && insmod /modules/null_blk.ko nr_devices=0 && "
             f"mount -t configfs configfs /sys/kernel/config && mkdir {NULLB} && cd {NULLB} && "
             f"echo {SIZE_MIB} >size && echo 1 >memory_backed && "
             # A millisecond each, so that all threads have writes in flight.
             "echo 2 >irqmode && echo 1000000 >completion_nsec && echo 1 >power && mdev -s")
    vm.guest("test -b /dev/nullb0")
    return vm.guest


def break_sectors(guest: Callable[[str], str], pieces: list[tuple[int, int]]) -> None:
    """Let every write to these fail from now on."""
    for first, number in pieces:
        guest(f"echo +{first}-{first + number - 1} >{NULLB}/badblocks")


@pytest.fixture(params=["device", "file"])
def place(guest, request):
    """Something to write to, whose blocks at FAILING fail."""
    if request.param == "device":
        break_sectors(guest, [(FAILING // 512, BLOCKS * 8)])
        return "/dev/nullb0"
    guest("mke2fs -b 4096 /dev/nullb0 && mkdir -p /mnt && mount -t ext4 /dev/nullb0 /mnt && "
          f"dd if=/dev/zero of=/mnt/file bs=1M count={FAILING // MIB + 2} && sync")
    lines = guest(f"errseq map /mnt/file {FAILING}").splitlines()
    pieces = [(int(first), int(number)) for first, number in map(str.split, lines)]
    assert sum(number for _, number in pieces) == BLOCKS * 8
    break_sectors(guest, pieces)
    return "/mnt/file"


def write(guest: Callable[..., str], place: str, descriptors: str, *, direct: bool = False,
          failing_threads: int) -> Result:
    """Write with eight threads beside those that write where it fails."""
    output = guest(f"errseq write {place} {descriptors} "
                   f"{'direct' if direct else 'buffered'} 8 {failing_threads} {FAILING} {WRITES} 60",
                   timeout=120)
    print(output)
    match = re.search(r"sound: (\d+) done, (\d+) failed; failing: (\d+) done, (\d+) failed", output)
    assert match
    result = Result(*map(int, match.groups()))
    # There was something to see.
    assert result.lies + result.failed >= WRITES and result.failed > 0 and result.sound_done > 0
    return result


def test_a_shared_descriptor_loses_errors(guest, place):
    assert write(guest, place, "shared", failing_threads=2).lies > 0


def test_one_write_at_a_time_loses_none(guest, place):
    assert write(guest, place, "separate", failing_threads=1).lies == 0


def test_a_watched_descriptor_loses_none(guest, place):
    """Another descriptor tells of the errors that a shared one has told somebody else."""
    assert write(guest, place, "watched", failing_threads=2).lies == 0


def test_direct_writes_lose_none(guest, place):
    assert write(guest, place, "shared", direct=True, failing_threads=2).lies == 0
