#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The story of a switched write cache, told by a guest and its host; see demo.sh.

Nothing is printed that was not just seen, and nothing that matters is printed
without being compared with what it has to be.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "host"))

from vbw import env as vbw_env  # noqa: E402
from vbw import kernel_log  # noqa: E402
from vbw.guest import GuestError, Job  # noqa: E402
from vbw.machine import Config, Disk, file_node, flush_fails_node, raw_node  # noqa: E402
from vbw.scenarios import vbwtool_pattern  # noqa: E402
from vbw.vm import OURS, VM  # noqa: E402

MIB = 1 << 20
LOAD = ("fio --name=load --filename=/dev/vda --size=16m --rw=randwrite --bs=4k --direct=1 "
        "--ioengine=libaio --iodepth=32 --verify=crc32c --verify_fatal=1 --loops=100000 "
        "--time_based --runtime=600")


class Failed(Exception):
    """Something is not what it has to be."""


class Story:
    """What is shown, and the count of what was checked."""

    def __init__(self) -> None:
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._bold, self._dim, self._plain = ("\033[1m", "\033[2m", "\033[0m") if colour \
            else ("", "", "")
        self.step_number = 0
        self.checks = 0
        self.start = time.monotonic()

    def step(self, title: str) -> None:
        """The next part of the story."""
        self.step_number += 1
        print(f"\n{self._bold}{self.step_number}. {title}{self._plain}", flush=True)

    def line(self, who: str, what: str) -> None:
        """Something that was done or seen."""
        print(f"   {self._dim}{who:>5} |{self._plain} {what}", flush=True)

    def check(self, who: str, what: str, expected: object, found: object) -> None:
        """Something that was seen, and what it has to be."""
        self.checks += 1
        if found != expected:
            self.line(who, f"{what}: {found}")
            raise Failed(f"{what} should be '{expected}'")
        self.line(who, f"{what}: {found}")

    def verdict(self, problem: str) -> int:
        """The last line; returns the exit status."""
        seconds = time.monotonic() - self.start
        if problem:
            print(f"\n{self._bold}FAILED{self._plain} in step {self.step_number}: {problem}")
            return 1
        print(f"\n{self._bold}PASSED{self._plain}: {self.checks} checks in {seconds:.0f} s")
        return 0


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
    vm.guest(f'echo "{mode}" > /sys/block/vda/cache_type')
    milliseconds = (time.monotonic() - began) * 1000
    story.line("guest", f'# echo "{mode}" > /sys/block/vda/cache_type   ({milliseconds:.0f} ms)')
    both_sides(story, vm, "vda", "disk0", mode, f"ok {mode}")


def io_goes_on(story: Story, vm: VM, load: Job) -> None:
    """The load has not ended, and gets further."""
    before = vm.host_stats()["wr_operations"]
    vm.guest("n=0; until [ $(awk '{ print $5 }' /sys/block/vda/stat) -gt "
             f"{before + 50} ]; do n=$((n + 1)); [ $n -lt 300 ] || exit 1; usleep 30000; done")
    more = vm.host_stats()["wr_operations"] - before
    story.check("guest", f"fio, {more} writes later", "still writes and verifies",
                "still writes and verifies" if load.running() else "has ended")


def write_pattern(vm: VM, disk: str, offset: int, seed: int) -> str:
    """A known block, written and read back."""
    answers = {vm.guest(f"vbwtool {what} /dev/{disk} {offset} 65536 {seed}")
               for what in ("write", "verify")}
    return " ".join(sorted(answers))


def deleted_image(vm: VM) -> Path:
    """The open file that has no name any more."""
    assert vm.process
    for entry in Path(f"/proc/{vm.process.pid}/fd").iterdir():
        if os.readlink(entry).endswith("disk0.img (deleted)"):
            return entry
    raise Failed("QEMU has no deleted image open")


def tell(story: Story, vm: VM, image: Path) -> None:
    """All steps."""
    story.step("A stock Debian kernel starts in the patched QEMU, and loads the driver")
    vm.start()
    vm.load()
    version = vm.qmp("query-version")["qemu"]
    story.line("host", f"QEMU {version['major']}.{version['minor']}.{version['micro']}, "
                       f"{vm.env.accel}; the guest took {vm.boot_seconds:.1f} s")
    story.check("guest", "uname -r", vm.env.release, vm.guest("uname -r"))
    story.check("guest", "vda's driver", OURS,
                vm.guest("basename $(readlink /sys/block/vda/device/driver)"))
    story.check("guest", "vda's feature bit 23, SET_WCE", "1",
                vm.guest("cut -c24 /sys/block/vda/device/features"))
    both_sides(story, vm, "vda", "disk0", "write back", "none")

    story.step("The write cache is switched, both ways, while fio writes and verifies")
    load = vm.guest.start(LOAD)
    io_goes_on(story, vm, load)
    switch(story, vm, "write through")
    io_goes_on(story, vm, load)
    switch(story, vm, "write back")
    io_goes_on(story, vm, load)

    story.step("The host deletes the disk's image, and the guest switches again")
    image.unlink()
    story.line("host", f"$ rm {image.name}")
    story.check("host", "the image's number of names", 0, os.stat(deleted_image(vm)).st_nlink)
    switch(story, vm, "write through")
    story.check("guest", "a block, written and verified", "OK", write_pattern(vm, "vda", 32 * MIB, 1))
    switch(story, vm, "write back")
    story.check("guest", "a block, written and verified", "OK", write_pattern(vm, "vda", 33 * MIB, 2))
    io_goes_on(story, vm, load)

    story.step("On a disk that cannot flush the switch fails, and changes nothing")
    story.check("guest", "a block of vdb, written and verified", "OK", write_pattern(vm, "vdb", 0, 3))
    story.check("guest", '# echo "write through" > /sys/block/vdb/cache_type', "EIO",
                vm.guest("vbwtool set /sys/block/vdb/cache_type 'write through'"))
    both_sides(story, vm, "vdb", "disk1", "write back", "error write through EIO")
    story.check("guest", "a block of vdb, written and verified", "OK", write_pattern(vm, "vdb", MIB, 4))
    io_goes_on(story, vm, load)

    for disk, device, counts in (("vda", "disk0", (4, 0)), ("vdb", "disk1", (0, 1))):
        counted = vm.host_stats(device)["write-cache"]
        story.check("host", f"query-blockstats, {disk}: switches, failed switches", counts,
                    (counted["switches"], counted["failed-switches"]))

    story.step("What was written is there")
    load.signal("INT")
    output = load.wait(60)
    story.check("guest", "errors that fio has seen", 0,
                output.text.count("err=") - output.text.count("err= 0"))
    with deleted_image(vm).open("rb") as file:
        for offset, seed in ((32 * MIB, 1), (33 * MIB, 2)):
            file.seek(offset)
            found = file.read(65536) == vbwtool_pattern(65536, seed)
            story.check("host", f"the block at {offset // MIB} MiB of the deleted image",
                        "as written", "as written" if found else "something else")
    complaints = kernel_log.bad_lines(vm.finish())
    story.check("guest", "warnings and oopses in the kernel's log", 0, len(complaints))


def main() -> int:
    """Prepare the images, tell the story, clean up."""
    env = vbw_env.load()
    folder = env.out / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    images = [folder / "disk0.img", folder / "disk1.img"]
    for image in images:
        with image.open("wb") as file:
            file.truncate(64 * MIB)
    story = Story()
    vm = VM(env, Config(disks=[
        Disk(raw_node(file_node(images[0])), name="disk0", props={"num-queues": 2}),
        Disk(flush_fails_node(images[1], once=False), name="disk1"),
    ], deadline=300), folder)
    problem = ""
    try:
        tell(story, vm, images[0])
    except (Failed, GuestError, OSError) as error:
        problem = f"{error}\nlogs: {folder}"
        vm.abandon()
    finally:
        vm.kill()
        for image in images:
            image.unlink(missing_ok=True)
    return story.verdict(problem)


if __name__ == "__main__":
    sys.exit(main())
