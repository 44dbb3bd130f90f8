#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The story of a switched write cache, told by guests and their host; see demo.sh.

Nothing is printed that was not just seen, and nothing that matters is printed
without being compared with what it has to be.
"""

import os
import shutil
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "host")]

import demo_losses as losses  # noqa: E402
from demo_losses import Side  # noqa: E402
from demo_story import Failed, Story  # noqa: E402
from prove.bench import BadSetUp  # noqa: E402
from vbw import env as vbw_env  # noqa: E402
from vbw import kernel_log  # noqa: E402
from vbw.guest import GuestError, Job  # noqa: E402
from vbw.machine import Disk, file_node, flush_fails_node, raw_node  # noqa: E402
from vbw.scenarios import vbwtool_pattern  # noqa: E402
from vbw.vm import OURS, STOCK, VM  # noqa: E402

MIB = 1 << 20
LOAD = ("fio --name=load --filename=/dev/vdb --size=16m --rw=randwrite --bs=4k --direct=1 "
        "--ioengine=libaio --iodepth=32 --verify=crc32c --verify_fatal=1 --loops=100000 "
        "--time_based --runtime=600")


def both_sides(story: Story, vm: VM, disk: str, device: str, mode: str, status: str) -> None:
    """What guest and host say about a disk's mode."""
    words = vm.guest(f"cd /sys/block/{disk}; cat cache_type cache_type_status")
    form = "{}; status: {}"
    story.check("guest", f"{disk} cache_type", form.format(mode, status),
                form.format(*words.splitlines()))
    story.check("host", f"query-block, {disk}", mode, vm.host_mode(device))


def switch(story: Story, vm: VM, mode: str) -> None:
    """A switch that has to succeed."""
    began = time.monotonic()
    vm.guest(f'echo "{mode}" > /sys/block/vdb/cache_type')
    milliseconds = (time.monotonic() - began) * 1000
    story.line("guest", f'# echo "{mode}" > /sys/block/vdb/cache_type   ({milliseconds:.0f} ms)')
    both_sides(story, vm, "vdb", "disk1", mode, f"ok {mode}")


def io_goes_on(story: Story, vm: VM, load: Job) -> None:
    """The load has not ended, and gets further."""
    before = int(vm.guest("awk '{ print $5 }' /sys/block/vdb/stat"))
    more = int(vm.guest("n=0; until m=$(awk '{ print $5 }' /sys/block/vdb/stat); "
                        f"[ $m -gt {before + 50} ]; do n=$((n + 1)); [ $n -lt 300 ] || exit 1; usleep 30000; done; "
                        "echo $m")) - before
    story.check("guest", f"fio, {more} writes later", "still writes and verifies",
                "still writes and verifies" if load.running() else "has ended")


def write_pattern(vm: VM, disk: str, offset: int, seed: int) -> str:
    """A known block, written and read back."""
    answers = {vm.guest(f"vbwtool {what} /dev/{disk} {offset} 65536 {seed}")
               for what in ("write", "verify")}
    return " ".join(sorted(answers))


def deleted_image(vm: VM, image: Path) -> Path:
    """The open file that has no name any more."""
    assert vm.process
    for entry in Path(f"/proc/{vm.process.pid}/fd").iterdir():
        if os.readlink(entry).endswith(f"{image.name} (deleted)"):
            return entry
    raise Failed("QEMU has no deleted image open")


def tell(story: Story, sides: tuple[Side, Side], image: Path) -> None:
    """All steps."""
    losses.start(story, sides)
    losses.at_the_switch(story, sides)
    losses.after_a_move(story, sides)
    stock, ours = sides
    stock.vm.kill()
    vm = ours.vm

    story.step("Here the write cache is switched, both ways, while fio writes and verifies")
    both_sides(story, vm, "vdb", "disk1", "write back", "none")
    load = vm.guest.start(LOAD)
    io_goes_on(story, vm, load)
    switch(story, vm, "write through")
    io_goes_on(story, vm, load)
    switch(story, vm, "write back")
    io_goes_on(story, vm, load)

    story.step("The host deletes the disk's image, and the guest switches again")
    image.unlink()
    story.line("host", f"$ rm {image.name}")
    story.check("host", "the image's number of names", 0, os.stat(deleted_image(vm, image)).st_nlink)
    switch(story, vm, "write through")
    story.check("guest", "a block, written and verified", "OK", write_pattern(vm, "vdb", 32 * MIB, 1))
    switch(story, vm, "write back")
    story.check("guest", "a block, written and verified", "OK", write_pattern(vm, "vdb", 33 * MIB, 2))
    io_goes_on(story, vm, load)

    story.step("On a disk that cannot flush the switch fails, and changes nothing")
    story.check("guest", "a block of vdc, written and verified", "OK", write_pattern(vm, "vdc", 0, 3))
    story.check("guest", '# echo "write through" > /sys/block/vdc/cache_type', "EIO",
                vm.guest("vbwtool set /sys/block/vdc/cache_type 'write through'"))
    both_sides(story, vm, "vdc", "disk2", "write back", "error write through EIO")
    story.check("guest", "a block of vdc, written and verified", "OK", write_pattern(vm, "vdc", MIB, 4))
    io_goes_on(story, vm, load)

    for disk, device, counts in (("vdb", "disk1", (4, 0)), ("vdc", "disk2", (0, 1))):
        counted = vm.host_stats(device)["write-cache"]
        story.check("host", f"query-blockstats, {disk}: switches, failed switches", counts,
                    (counted["switches"], counted["failed-switches"]))

    story.step("What was written is there")
    load.signal("INT")
    output = load.wait(60)
    story.check("guest", "errors that fio has seen", 0,
                output.text.count("err=") - output.text.count("err= 0"))
    with deleted_image(vm, image).open("rb") as file:
        for offset, seed in ((32 * MIB, 1), (33 * MIB, 2)):
            file.seek(offset)
            found = file.read(65536) == vbwtool_pattern(65536, seed)
            story.check("host", f"the block at {offset // MIB} MiB of the deleted image",
                        "as written", "as written" if found else "something else")
    complaints = [line for each in ours.bench.vms for line in kernel_log.bad_lines(each.finish())]
    story.check("guest", "warnings and oopses in the kernel's log", 0, len(complaints))


def main() -> int:
    """Prepare the images, tell the story, clean up."""
    env = vbw_env.load()
    folder = env.out / "demo"
    shutil.rmtree(folder, ignore_errors=True)
    images = [folder / "disk1.img", folder / "disk2.img"]
    for image in images:
        image.parent.mkdir(parents=True, exist_ok=True)
        with image.open("wb") as file:
            file.truncate(64 * MIB)
    story = Story()
    stock = Side(env, folder / "stock", STOCK, [])
    ours = Side(env, folder / "ours", OURS, [
        Disk(raw_node(file_node(images[0])), name="disk1", props={"num-queues": 2}),
        Disk(flush_fails_node(images[1], once=False), name="disk2"),
    ])
    problem = ""
    try:
        tell(story, (stock, ours), images[0])
    except (Failed, GuestError, BadSetUp, OSError) as error:
        problem = f"{error}\nlogs: {folder}"
    finally:
        for side in (stock, ours):
            side.bench.close()
        for image in images:
            image.unlink(missing_ok=True)
    return story.verdict(problem)


if __name__ == "__main__":
    sys.exit(main())
