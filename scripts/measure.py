#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What the driver costs beside the kernel's own; see measure.sh."""

import lzma
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "host"))

from vbw import env as vbw_env  # noqa: E402
from vbw.machine import Config, Disk, file_node, raw_node  # noqa: E402
from vbw.vm import OURS, STOCK, VM  # noqa: E402

ENV = vbw_env.load()
DRIVERS = (STOCK, OURS)
RUNS = 3
MIB = 1 << 20


@contextmanager
def machine(disks: int = 1, props: dict[str, object] | None = None, **config: object) -> Iterator[VM]:
    """A guest with some disks and no driver for them yet."""
    with tempfile.TemporaryDirectory(dir=ENV.out) as name:
        folder = Path(name)
        made = []
        for number in range(disks):
            image = folder / f"disk{number}.img"
            with image.open("wb") as file:
                file.truncate(64 * MIB)
            made.append(Disk(raw_node(file_node(image)), name=f"disk{number}", props=props or {}))
        vm = VM(ENV, Config(disks=made, **config), folder)  # type: ignore[arg-type]
        vm.start()
        try:
            yield vm
            vm.finish()
        finally:
            vm.kill()


def row(*cells: object) -> None:
    """A line of a table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def head(*cells: str) -> None:
    """The head of a table."""
    row(*cells)
    row(*["---"] * len(cells))


def compare(what: str, measured: dict[str, list[float]], digits: int = 0) -> None:
    """Both medians, the ratio of the two, and how far the runs are apart."""
    stock, ours = (statistics.median(measured[driver]) for driver in DRIVERS)
    spread = max((max(values) - min(values)) / max(1, statistics.median(values))
                 for values in measured.values())
    row(what, f"{stock:,.{digits}f}", f"{ours:,.{digits}f}",
        f"{ours / stock:.2f}" if stock else "-", f"{spread:.1%}")


def size() -> None:
    """What the modules have in memory."""
    stock = Path("/usr/lib/modules") / ENV.release / "kernel/drivers/block/virtio_blk.ko.xz"
    files = {OURS: ENV.module.read_bytes(), STOCK: lzma.decompress(stock.read_bytes())}
    head("bytes of the module", STOCK, OURS, "ratio")
    sections = {}
    for driver, content in files.items():
        with tempfile.NamedTemporaryFile(suffix=".ko") as file:
            file.write(content)
            file.flush()
            output = subprocess.run(["size", file.name], check=True, capture_output=True,
                                    text=True).stdout
        sections[driver] = dict(zip(("text", "data", "bss"),
                                    map(int, output.splitlines()[1].split()[:3])))
    for name in ("text", "data", "bss"):
        stock_bytes, ours_bytes = (sections[driver][name] for driver in DRIVERS)
        row(name, stock_bytes, ours_bytes, f"{ours_bytes / max(1, stock_bytes):.2f}")


LOADS = {
    "read, depth 1": "--ioengine=psync --rw=randread",
    "write, depth 1": "--ioengine=psync --rw=randwrite",
    "read, depth 32": "--ioengine=libaio --rw=randread --iodepth=32",
    "read, batches of 16": "--ioengine=io_uring --rw=randread --iodepth=16 "
                           "--iodepth_batch_submit=16 --iodepth_batch_complete_min=16",
    "read, polled": "--ioengine=io_uring --hipri=1 --rw=randread --iodepth=8",
}


def instructions() -> None:
    """Guest instructions for each 4 KiB request, by the difference of a long and a short run."""
    head("guest instructions for a request of 4 KiB", STOCK, OURS, "ratio", "spread")
    for what, options in LOADS.items():
        measured: dict[str, list[float]] = {driver: [] for driver in DRIVERS}
        for _ in range(RUNS):
            for driver in DRIVERS:
                counts = [executed(driver, options, number) for number in (1000, 11000)]
                measured[driver].append((counts[1] - counts[0]) / 10000)
        compare(what, measured)


def executed(driver: str, options: str, number: int) -> int:
    """The instructions that a guest executes from its start to its end."""
    plugin = ["-plugin", f"{ENV.qemu / 'libinsn.so'},inline=on", "-d", "plugin"]
    with machine(props={"num-queues": 2}, extra=plugin) as vm:
        vm.load(driver, "poll_queues=1" if "hipri" in options else "")
        vm.guest(f"fio --name=x --filename=/dev/vda --size=32m --bs=4k --direct=1 --norandommap "
                 f"--number_ios={number} {options} --output=/dev/null", 200)
        vm.finish()
        log = (vm.folder / "qemu.log").read_text()
    return int(re.findall(r"total insns: (\d+)", log)[-1])


def memory() -> None:
    """Guest memory that a bound disk takes, and each further queue of it."""
    disks = 8
    head("KiB of the guest's memory", STOCK, OURS, "ratio", "spread")
    taken: dict[int, dict[str, list[float]]] = {}
    for queues in (1, 2):
        taken[queues] = {driver: [] for driver in DRIVERS}
        for _ in range(RUNS):
            for driver in DRIVERS:
                with machine(disks, {"num-queues": queues}, cpus=2) as vm:
                    before = free(vm)
                    vm.load(driver)
                    taken[queues][driver].append((before - free(vm)) / disks)
    compare("a disk with one queue", taken[1])
    compare("a second queue", {driver: [two - one for one, two in
                                        zip(taken[1][driver], taken[2][driver])]
                               for driver in DRIVERS})


def free(vm: VM) -> int:
    """KiB that nothing uses once caches are dropped."""
    return int(vm.guest("sync; echo 3 > /proc/sys/vm/drop_caches; usleep 500000; "
                        "echo 3 > /proc/sys/vm/drop_caches; awk '/MemFree/ { print $2 }' /proc/meminfo"))


ROUNDS = 1000
BIND = """d=$(basename $(readlink -f /sys/block/vda/device)); cd /sys/bus/virtio/drivers/virtio_blk_wce
    there() { until [ -b /dev/vda ]; do usleep 5000; done; }
    read_all() { cat /dev/vda > /dev/null 2>&1 & }
    n=0; while [ $n -lt %d ]; do read_all; echo $d > unbind; echo $d > bind; there; n=$((n + 1)); done; wait"""
INSMOD = """there() { until [ -b /dev/vda ]; do usleep 5000; done; }
    n=0; while [ $n -lt %d ]; do dd if=/dev/vda of=/dev/null bs=64k count=8 iflag=direct 2> /dev/null
    rmmod virtio_blk_wce && insmod /vbw/virtio_blk_wce.ko || exit 1; there; n=$((n + 1)); done"""


def cycles() -> None:
    """Bound and unbound, loaded and unloaded, many times: what is left behind."""
    head("what is done", "times", "KiB of slabs before", "after", "KiB free before", "after")
    for what, script in (("unbind and bind, under reads", BIND), ("rmmod and insmod", INSMOD)):
        with machine(deadline=3600) as vm:
            vm.load(OURS)
            # What is allocated once and for all is, after some rounds.
            vm.guest(script % 20, 300)
            before = slabs(vm), free(vm)
            for _ in range(ROUNDS // 50):
                vm.guest(script % 50, 300)
            row(what, ROUNDS, before[0], slabs(vm), before[1], free(vm))


def slabs(vm: VM) -> int:
    """KiB in slabs once caches are dropped."""
    free(vm)
    return int(vm.guest("awk '/^Slab/ { print $2 }' /proc/meminfo"))


def main() -> None:
    """Measure what is asked for."""
    all_of_it: dict[str, Callable[[], None]] = {
        "size": size, "instructions": instructions, "memory": memory, "cycles": cycles}
    wanted = sys.argv[1:] or list(all_of_it)
    for name in wanted:
        if name not in all_of_it:
            sys.exit(f"measure.sh: {name}: not one of {' '.join(all_of_it)}")
    for name in wanted:
        print()
        all_of_it[name]()


if __name__ == "__main__":
    main()
