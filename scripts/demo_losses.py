# SPDX-License-Identifier: GPL-2.0
"""Two ways in which the stock parts lose data that they have said is stable, and what becomes of it here.

The disk is a storage that forgets (tests/prove/storage.py): what was not flushed is lost when the power fails.
Nothing here depends on time. Each loss happens whenever its steps are made.
"""

from pathlib import Path

from demo_story import Story
from prove.bench import Bench
from vbw.env import Env
from vbw.machine import Config, Disk, raw_node
from vbw.scenarios import vbwtool_pattern
from vbw.vm import OURS, STOCK, VM

MIB = 1 << 20
BLOCK = 65536
SMALL = 4096
WRITES = 20
COLUMNS = ("stock parts", "this project")


class Side:
    """A guest with a driver and a QEMU, and the storage below its first disk."""

    def __init__(self, env: Env, folder: Path, driver: str, disks: list[Disk]) -> None:
        self.driver = driver
        self.folder = folder
        self.bench = Bench(env, folder, 1, 0)
        stock = driver == STOCK
        self.vm = VM(env, Config(
            disks=[Disk(raw_node(self.bench.serve()), props={"num-queues": 2}), *disks],
            stock_qemu=stock, start_seconds=120), folder / "vm")
        self.bench.vms.append(self.vm)

    def flushes(self) -> int:
        """How many flushes the storage was sent."""
        return self.bench.call(lambda: self.bench.storage.counts["flush"])

    def cut(self, offset: int, length: int) -> bytes:
        """What the storage would have there if the power failed now."""
        left = self.folder / "left"
        self.bench.call(lambda: self.bench.storage.snapshot(left))
        with left.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
        left.unlink()
        return data

    def guest_mode(self) -> str:
        """The mode by which the guest decides whether to flush."""
        return self.vm.guest("cd /sys/block/vda; cat "
                             + ("cache_type" if self.driver == OURS else "queue/write_cache"))


def version(vm: VM) -> str:
    """QEMU's."""
    number = vm.qmp("query-version")["qemu"]
    return f"{number['major']}.{number['minor']}.{number['micro']}"


def start(story: Story, sides: tuple[Side, Side]) -> None:
    """Two guests with the same kernel."""
    stock, ours = sides
    story.step("Two guests start, one with stock parts, one with this driver and the patched QEMU", COLUMNS)
    for side in sides:
        side.vm.launch()
    for side in sides:
        side.vm.wait_ready().load(side.driver)
    story.beside("host", "QEMU", *((version(side.vm),) * 2 for side in sides))
    story.beside("host", f"seconds to start, with {stock.vm.env.accel}",
                 *((f"{side.vm.boot_seconds:.1f}",) * 2 for side in sides))
    story.check("guest", "uname -r of both", stock.vm.env.release,
                " and ".join({side.vm.guest("uname -r") for side in sides}))
    story.beside("guest", "vda's driver",
                 *((side.driver, side.vm.guest("basename $(readlink /sys/block/vda/device/driver)"))
                   for side in sides))
    story.beside("guest", "vda's feature bit 23, SET_WCE",
                 *((str(int(side is ours)), side.vm.guest("cut -c24 /sys/block/vda/device/features"))
                   for side in sides))
    story.beside("guest", "vda's cache_type",
                 *(("write back", side.vm.guest("cat /sys/block/vda/cache_type")) for side in sides))


def at_the_switch(story: Story, sides: tuple[Side, Side]) -> None:
    """What was written before a switch to write through, and synced after it."""
    story.step("A block is written, the disk switched to write through, and synced. The power fails", COLUMNS)
    before = [side.flushes() for side in sides]
    for what, command in (
            (f"a block of {BLOCK >> 10} KiB is written", f"vbwtool write /dev/vda {MIB} {BLOCK} 1"),
            ('# echo "write through" > /sys/block/vda/cache_type',
             "vbwtool set /sys/block/vda/cache_type 'write through'"),
            ("fsync of /dev/vda", "vbwtool fsync /dev/vda")):
        story.beside("guest", what, *(("OK", side.vm.guest(command)) for side in sides))
    got = [side.flushes() - were for side, were in zip(sides, before)]
    story.beside("host", "flushes that have come to the storage", (0, got[0]), (max(got[1], 1), got[1]))
    pattern = vbwtool_pattern(BLOCK, 1)
    left = [{pattern: "there", bytes(BLOCK): "lost"}.get(side.cut(MIB, BLOCK), "damaged") for side in sides]
    story.beside("host", "after a power cut, the block is", *zip(("lost", "there"), left), verdict=True)


def after_a_move(story: Story, sides: tuple[Side, Side]) -> None:
    """A guest that flushes no more arrives where the disk writes back."""
    story.step("Both guests move to another QEMU, and go on to write and to sync. The power fails", COLUMNS)
    for side in sides:
        side.vm = side.bench.move(side.vm)
    story.beside("guest", "the mode that it goes by", *(("write through", side.guest_mode()) for side in sides))
    story.beside("host", "the mode that its QEMU goes by",
                 *zip(("write back", "write through"), (side.vm.host_mode() for side in sides)))
    command = (f"n=0; for i in $(seq {WRITES}); do "
               f"[ $(vbwtool write /dev/vda $(({2 * MIB} + i * {SMALL})) {SMALL} $i) = OK ] && "
               "[ $(vbwtool fsync /dev/vda) = OK ] && n=$((n + 1)); done; echo $n")
    story.beside("guest", "blocks that were written, each with an fsync",
                 *((str(WRITES), side.vm.guest(command)) for side in sides))
    left = []
    for side in sides:
        data = side.cut(2 * MIB, (WRITES + 1) * SMALL)
        left.append(sum(data[i * SMALL:(i + 1) * SMALL] == vbwtool_pattern(SMALL, i)
                        for i in range(1, WRITES + 1)))
    story.beside("host", "after a power cut, there are of these", *zip((0, WRITES), left), verdict=True)
