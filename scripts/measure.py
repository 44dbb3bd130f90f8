#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What the driver costs beside the kernel's own; see measure.sh."""

import json
import lzma
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import matplotlib

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "host"))

import guest_instructions  # noqa: E402
from vbw import env as vbw_env  # noqa: E402
from vbw.machine import Config, Disk, file_node, raw_node  # noqa: E402
from vbw.vm import MODULES, OURS, STOCK, VM, wait_for_disks  # noqa: E402

# There is no display.
matplotlib.use("agg")
from matplotlib import pyplot  # noqa: E402

ENV = vbw_env.load()
DRIVERS = (STOCK, OURS)
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


# What was measured: for each table its title, its columns and its rows.
TABLES: list[dict[str, Any]] = []


def row(*cells: object) -> None:
    """A line of a table."""
    TABLES[-1]["rows"].append(cells)
    line(*cells)


def say(text: str) -> None:
    """What is going on, for who waits for it."""
    print(f"  … {text}", file=sys.stderr, flush=True)


def line(*cells: object) -> None:
    """Print a line of a table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def head(*cells: str) -> None:
    """The head of a new table."""
    TABLES.append({"title": cells[0], "columns": cells[1:], "rows": [], "runs": {}})
    line(*cells)
    line(*["---"] * len(cells))


def spread(runs: Iterable[list[float]]) -> str:
    """How far the runs are apart, in parts of their median, where that is most."""
    return f"{max((max(values) - min(values)) / max(1, statistics.median(values)) for values in runs):.1%}"


def compare(what: str, measured: dict[str, list[float]], digits: int = 0) -> None:
    """Both medians, the ratio of the two, and how far the runs are apart."""
    stock, ours = (statistics.median(measured[driver]) for driver in DRIVERS)
    TABLES[-1]["runs"][what] = measured
    row(what, f"{stock:,.{digits}f}", f"{ours:,.{digits}f}",
        f"{ours / stock:.2f}" if stock else "-", spread(measured.values()))


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


def source() -> None:
    """What is unsafe, and what of the kernel's own driver has a test here."""
    parts = {"driver": "drivers", "layer": "rust"}
    texts = {part: [re.sub(r"//.*", "", path.read_text()) for path in (ENV.src / folder).rglob("*.rs")]
             for part, folder in parts.items()}
    blocks = {part: [block for text in those for block in unsafe_blocks(text)]
              for part, those in texts.items()}
    head("of the source", *parts)
    row("unsafe blocks", *(len(blocks[part]) for part in parts))
    row("lines of the longest of them", *(max(map(len, blocks[part]), default=0) for part in parts))
    row("unsafe functions, traits and their implementations",
        *(sum(len(re.findall(r"\bunsafe (?:fn|trait|impl|extern)", text)) for text in texts[part])
          for part in parts))
    row("lines with code", *(sum(1 for text in texts[part] for code in text.splitlines() if code.strip())
                             for part in parts))
    # A row of a table begins with words in its first two columns.
    rows = re.findall(r"^(?! )(\S.{34}) {2}(\S.{42}) {2}(.*)$",
                      (ENV.src / "Documentation/parity.rst").read_text(), re.M)
    rows = [cells for cells in rows if not cells[0].startswith(("===", "what "))]
    head("rows of Documentation/parity.rst", "all", "with a test")
    row("", len(rows), sum(1 for cells in rows if re.search(r"\.(sh|py|rs)", cells[2])))


def unsafe_blocks(text: str) -> Iterator[list[str]]:
    """Each unsafe block of a source without comments, as its lines with code."""
    for match in re.finditer(r"\bunsafe \{", text):
        depth, end = 1, match.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        yield [code for code in text[match.start():end].splitlines() if code.strip()]


LOADS = {
    "read, depth 1": "--ioengine=psync --rw=randread",
    "write, depth 1": "--ioengine=psync --rw=randwrite",
    "read, depth 32": "--ioengine=libaio --rw=randread --iodepth=32",
    "read, batches of 16": "--ioengine=io_uring --rw=randread --iodepth=16 "
                           "--iodepth_batch_submit=16 --iodepth_batch_complete_min=16",
    "read, polled": "--ioengine=io_uring --hipri=1 --rw=randread --iodepth=8",
}


def instructions() -> None:
    """What a request costs the guest, by who executes it: see guest_instructions.py."""
    plugin = Path(os.environ["VBW_PLUGIN"])
    runs = {driver: [guest_instructions.count(ENV, plugin, driver, MODULES[driver], say) for _ in range(2)]
            for driver in DRIVERS}
    parts = ("own", "called", "locks", "decided", "whole")
    head("guest instructions for a request", *(f"{driver}: {part}" for driver in DRIVERS for part in parts),
         "ratio of decided", "ratio of whole", "runs differ by", "whole by")
    for what, load in guest_instructions.LOADS.items():
        costs = {driver: [guest_instructions.per_request(load, each[what]) for each in runs[driver]]
                 for driver in DRIVERS}
        TABLES[-1]["runs"][what] = {driver: [vars(cost) for cost in each] for driver, each in costs.items()}
        means = {driver: {part: statistics.mean(getattr(cost, part) for cost in each) for part in parts}
                 for driver, each in costs.items()}
        row(what, *(f"{means[driver][part]:,.0f}" for driver in DRIVERS for part in parts),
            *(f"{means[OURS][part] / means[STOCK][part]:.2f}" for part in ("decided", "whole")),
            *(f"{max(apart(costs[driver], part) for driver in DRIVERS):.1%}" for part in ("decided", "whole")))
    head("decided in a turn of a polled queue", *DRIVERS, "ratio", "runs differ by")
    turns = {driver: [guest_instructions.polled(each) for each in runs[driver]] for driver in DRIVERS}
    for index, what in enumerate(("that finds nothing", "that finds a request, and the request")):
        values = {driver: [turn[index] for turn in turns[driver]] for driver in DRIVERS}
        row(what, *(f"{values[driver][0]:,.0f}" for driver in DRIVERS),
            f"{values[OURS][0] / values[STOCK][0]:.2f}", spread(values.values()))


def apart(costs: list[guest_instructions.Cost], part: str) -> float:
    """How far runs are apart."""
    one, other = (getattr(cost, part) for cost in costs)
    return abs(one - other) / one


def memory() -> None:
    """Guest memory that a bound disk takes, and each further queue of it."""
    disks = 8
    taken: dict[int, dict[str, list[float]]] = {}
    for queues in (1, 2):
        taken[queues] = {driver: [] for driver in DRIVERS}
        with machine(disks, {"num-queues": queues}, cpus=2, deadline=1800) as vm:
            for turn in range(TURNS + 1):
                for driver in DRIVERS:
                    say(f"memory, turn {turn} of {TURNS}: {queues} queues, {driver}")
                    used = bound(vm, driver, disks)
                    # What is allocated once and for all is, after the first turn.
                    if turn:
                        taken[queues][driver].append(used / disks)
    head("KiB of the guest's memory", STOCK, OURS, "ratio", "spread")
    compare("a disk with one queue", taken[1])
    compare("a second queue", {driver: [two - one for one, two in
                                        zip(taken[1][driver], taken[2][driver])]
                               for driver in DRIVERS})


def bound(vm: VM, driver: str, disks: int) -> int:
    """KiB that all disks take together, without the driver itself."""
    every = f"cd /sys/bus/virtio/drivers/{driver}; for d in $(cat /tmp/devices); do echo $d > %s; done"
    vm.load(driver)
    vm.guest(f"cd /sys/bus/virtio/drivers/{driver} && echo virtio* > /tmp/devices")
    vm.guest(every % "unbind")
    before = free(vm)
    vm.guest(every % "bind")
    vm.guest(wait_for_disks(disks))
    used = before - free(vm)
    vm.guest(f"rmmod {driver}")
    return used


def free(vm: VM) -> int:
    """KiB that nothing uses once caches are dropped, those that a CPU keeps for itself included."""
    return 4 * int(vm.guest("sync; echo 3 > /proc/sys/vm/drop_caches; usleep 500000; "
                            "echo 3 > /proc/sys/vm/drop_caches; awk '/nr_free_pages/ || "
                            "/^ *count:/ { n += $2 } END { print n }' /proc/zoneinfo"))


# Who is compared: with the patched QEMU and with one that a distribution has.
Side = tuple[str, str]
SIDES: list[Side] = [(driver, qemu) for qemu in ("patched", "stock") for driver in DRIVERS]
TURNS = 5
WRITE_THROUGH = "write, depth 1, write through"
SPEED_LOADS = {
    **LOADS,
    "write, depth 32": "--ioengine=libaio --rw=randwrite --iodepth=32",
    "read 128 KiB, depth 8": "--ioengine=libaio --rw=read --iodepth=8 --bs=128k",
    "write and fsync": "--ioengine=psync --rw=randwrite --fsync=1",
    WRITE_THROUGH: LOADS["write, depth 1"],
}


def speed() -> None:
    """Requests per second, and how long one takes, by fio; sides take turns, a second each."""
    measured: dict[str, dict[Side, list[tuple[float, float]]]] = {}
    with ExitStack() as machines:
        vms = {side: machines.enter_context(
            machine(props={"num-queues": 2}, stock_qemu=side[1] == "stock", deadline=3600))
            for side in SIDES}
        for (driver, _), vm in vms.items():
            vm.load(driver, "poll_queues=1")
        for what, options in SPEED_LOADS.items():
            say(f"speed: {what}")
            if what == WRITE_THROUGH:
                for vm in vms.values():
                    vm.guest("echo 'write through' > /sys/block/vda/cache_type")
            for _ in range(TURNS):
                for side, vm in vms.items():
                    measured.setdefault(what, {}).setdefault(side, []).append(fio_result(vm, options))
    for index, title in enumerate(("requests per second", "mean latency in µs")):
        head(title, *(", ".join(side) + " QEMU" for side in SIDES),
             "driver's ratio, patched QEMU", "QEMU's ratio, virtio_blk", "spread")
        for what, sides in measured.items():
            runs = {side: [result[index] for result in results] for side, results in sides.items()}
            TABLES[-1]["runs"][what] = {", ".join(side): values for side, values in runs.items()}
            row(what, *(f"{statistics.median(runs[side]):,.0f}" for side in SIDES),
                f"{ratio(runs[OURS, 'patched'], runs[STOCK, 'patched']):.2f}",
                f"{ratio(runs[STOCK, 'patched'], runs[STOCK, 'stock']):.2f}", spread(runs.values()))


def ratio(ones: list[float], others: list[float]) -> float:
    """The median of the ratios of turns that followed each other."""
    return statistics.median(one / other for one, other in zip(ones, others))


def fio_result(vm: VM, options: str) -> tuple[float, float]:
    """Requests per second and their mean latency in microseconds."""
    vm.guest(f"fio --name=x --filename=/dev/vda --size=32m --bs=4k --direct=1 --norandommap --time_based "
             f"--runtime=1 {options} --output-format=json --output=/run/fio.json", 60)
    job = json.loads(vm.guest("cat /run/fio.json"))["jobs"][0]
    side = max((job["read"], job["write"]), key=lambda side: side["total_ios"])
    return side["iops"], side["lat_ns"]["mean"] / 1000


ROUNDS = 1000
BIND = """d=$(basename $(readlink -f /sys/block/vda/device)); cd /sys/bus/virtio/drivers/{driver}
    there() {{ until [ -b /dev/vda ]; do usleep 5000; done; }}
    read_all() {{ cat /dev/vda > /dev/null 2>&1 & }}
    n=0; while [ $n -lt {rounds} ]; do read_all; echo $d > unbind; echo $d > bind; there; n=$((n + 1)); done
    wait"""
INSMOD = """there() {{ until [ -b /dev/vda ]; do usleep 5000; done; }}
    n=0; while [ $n -lt {rounds} ]; do
        dd if=/dev/vda of=/dev/null bs=64k count=8 iflag=direct 2> /dev/null
        rmmod {driver} && insmod {module} || exit 1; there; n=$((n + 1)); done"""


def cycles() -> None:
    """Bound and unbound, loaded and unloaded, many times: what is left behind."""
    head("what is done", "by", "times", "KiB of slabs before", "after", "KiB free before", "after")
    for what, script in (("unbind and bind, under reads", BIND), ("rmmod and insmod", INSMOD)):
        for driver in DRIVERS:
            with machine(deadline=3600) as vm:
                vm.load(driver)

                def turn(rounds: int) -> None:
                    vm.guest(script.format(driver=driver, module=MODULES[driver], rounds=rounds), 300)

                # What is allocated once and for all is, after some rounds.
                turn(50)
                before = slabs(vm), free(vm)
                for done in range(0, ROUNDS, 50):
                    say(f"cycles: {what}, {driver}, {done} of {ROUNDS}")
                    turn(50)
                row(what, driver, ROUNDS, before[0], slabs(vm), before[1], free(vm))


def slabs(vm: VM) -> int:
    """KiB in slabs once caches are dropped."""
    free(vm)
    return int(vm.guest("awk '/^Slab/ { print $2 }' /proc/meminfo"))


def pictures(folder: Path) -> list[Path]:
    """A picture of each table that compares: the ratio of the two sides, and where they are equal."""
    made = []
    for table in TABLES:
        column = next((index for index, name in enumerate(table["columns"], 1) if "ratio" in name), None)
        bars = [(str(cells[0]), float(cells[column])) for cells in reversed(table["rows"])
                if column is not None and cells[column] not in ("", "-")]
        if not bars:
            continue
        figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.4 * len(bars)), layout="constrained")
        axes.bar_label(axes.barh(*zip(*bars)), fmt="{:.2f}", padding=3)
        axes.axvline(1, color="black")
        axes.set_title(f"{table['title']}: {table['columns'][column - 1]}")
        made.append(folder / (re.sub(r"\W+", "-", table["title"]) + ".png"))
        figure.savefig(made[-1])
        pyplot.close(figure)
    return made


def measure(script: str, all_of_it: dict[str, Callable[[], None]]) -> None:
    """Measure what a script is asked for, and leave tables and pictures."""
    wanted = sys.argv[1:] or list(all_of_it)
    for name in wanted:
        if name not in all_of_it:
            sys.exit(f"{script}.sh: {name}: not one of {' '.join(all_of_it)}")
    for name in wanted:
        print()
        all_of_it[name]()

    results = ENV.out / f"{script}.json"
    results.write_text(json.dumps({"accel": ENV.accel, "kernel": ENV.release, "tables": TABLES}, indent=1))
    print()
    for path in (results, *pictures(ENV.out)):
        print(path)


if __name__ == "__main__":
    measure("measure", {"speed": speed, "instructions": instructions, "source": source, "size": size,
                        "memory": memory, "cycles": cycles})
