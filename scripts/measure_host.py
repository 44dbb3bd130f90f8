#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What a switch costs on the host, and what write through does; see measure-host.sh."""

import functools
import itertools
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from bare_disk import BareDisk, drive
from measure import ENV, MIB, head, machine, measure, row, spread
from neighbours import COMPANY, daemon, guest_of
from prove import files, trials
from qemu_instructions import per_request
from vbw import descriptors
from vbw.guest import Job
from vbw.machine import file_node, raw_node
from vbw.vm import OURS, VM, wait_for_disks

# How often everything is done whose median is shown, and how often the guest switches both ways.
RUNS = int(os.environ.get("VBW_RUNS", "5"))
PAIRS = int(os.environ.get("VBW_PAIRS", "5000"))
# How many failed writes there have to be.
FAILED = int(os.environ.get("VBW_FAILED", "2000"))
# Which rows of writes beside stock QEMU are measured.
ROWS = os.environ.get("VBW_ROWS", "")

# Four queues in two threads, and what fio keeps busy.
THREADS = {"cpus": 4, "extra_first": ["-object", "iothread,id=io0", "-object", "iothread,id=io1"]}
QUEUES = {"num-queues": 4, "iothread-vq-mapping": [{"iothread": "io0"}, {"iothread": "io1"}]}
FIO = "fio --name=load --filename=/dev/vda --size=16m --bs=4k --direct=1 --time_based --runtime=3600 "
# One request at a time; what fio says of them is for completions().
PROBE = "--ioengine=psync --output-format=json --output=/run/probe.out "
BUSY = FIO + ("--rw=randwrite --ioengine=libaio --iodepth=32 --verify=crc32c --verify_fatal=1 "
              "--verify_backlog=256 --output=/run/busy.out")
WRITES = FIO + "--rw=randwrite --ioengine=libaio --iodepth=%d --output=/dev/null"

# What QEMU calls the first disk, and the nanoseconds by which it counts how long its reads take: from 0.1 to 100 ms,
# each 5 % more than the one before.
DISK = "/machine/peripheral/disk0/virtio-backend"
LATENCIES = [int(100_000 * 1.05 ** step) for step in range(142)]

# How far it is from one write to the next. File systems keep neighbours together, and so write them together.
STEPS = {"neighbours": 4096, "scattered": MIB + 4096}


def switching(number: int, seconds: float = 0) -> str:
    """The guest's command for so many switches both ways, and the time from one to the next."""
    return f"vbwtool switch /sys/block/vda/cache_type {number} {int(seconds * 1000000)}"


def resident(vm: VM) -> tuple[int, int]:
    """KiB of QEMU's memory, without the guest's and without the code that its code was translated to; and of
    this its heap, of which threads have more than one."""
    total, heap, counted, is_heap = 0, 0, False, False
    for line in Path(f"/proc/{descriptors.qemu_pid(vm)}/smaps").read_text().splitlines():
        if area := re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+)\s*(.*)", line):
            size = int(area[2], 16) - int(area[1], 16)
            counted = size != vm.config.memory_mb * MIB and "x" not in area[3]
            is_heap = area[5] == "[heap]" or (area[4] == "0" and int(area[1], 16) % (64 * MIB) == 0)
        elif counted and line.startswith("Rss:"):
            total += int(line.split()[1])
            heap += int(line.split()[1]) * is_heap
    return total, heap


def opened(vm: VM) -> int:
    """How many descriptors QEMU has."""
    return len(list(Path(f"/proc/{descriptors.qemu_pid(vm)}/fd").iterdir()))


def switches() -> None:
    """10,000 switches under load: what fails, and what is left behind."""
    rounds = 100
    times = PAIRS // rounds
    head("switches that succeeded", "s", "descriptors of QEMU", "KiB of its memory", "of which heap")
    with machine(props=QUEUES, deadline=7200, **THREADS) as vm:
        vm.load(OURS)
        load = start(vm, BUSY)
        began = time.monotonic()
        for number in range(rounds + 2):
            # The first ones are not counted: what is allocated once and for all is after them.
            if number in (1, 1 + rounds // 2, 1 + rounds):
                row(2 * times * (number - 1), f"{time.monotonic() - began:.0f}", opened(vm), *resident(vm))
            if number <= rounds:
                vm.guest(switching(times), 600)
        assert load.running(), load.wait().text
        end(load)
        assert "err= 0" in vm.guest("cat /run/busy.out")


def start(vm: VM, command: str) -> Job:
    """Have fio do something with the disk, and wait until it does."""
    requests = "$(awk '{ print $1 + $5 }' /sys/block/vda/stat)"
    before = vm.guest(f"echo {requests}")
    load = vm.guest.start(command)
    vm.guest(f"until [ {requests} -gt $(({before} + 100)) ]; do usleep 20000; done")
    return load


def end(load: Job) -> None:
    """End what fio does."""
    load.signal("INT")
    load.wait(120)


def durations(vm: VM, number: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Milliseconds that the device takes for each of the switches that the guest makes now, and that the guest
    takes beside that."""
    log = vm.folder / "qemu.log"
    before = log.stat().st_size
    waited = [int(us) / 1000 for us in vm.guest(switching(number), 600).split()]
    began, mode, taken = 0.0, "", dict[str, list[float]](through=[], back=[])
    pattern = r"^\d+@([\d.]+):virtio_blk_(?:handle_set_wce .* wce (\d)|set_wce_complete .* ret 0)$"
    with log.open() as file:
        file.seek(before)
        for second, wanted in re.findall(pattern, file.read(), re.M):
            if wanted:
                began, mode = float(second), "back" if wanted == "1" else "through"
            else:
                taken[mode].append((float(second) - began) * 1000)
    assert len(taken["through"]) == len(taken["back"]) == number == len(waited) // 2
    return taken, {mode: [all_of_it - device for all_of_it, device in zip(waited[first::2], taken[mode])]
                   for first, mode in enumerate(taken)}


def middle(values: list[float], digits: int = 2) -> str:
    """Their median, and how far they are apart."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def latency() -> None:
    """From the request to its completion; beside it, on an idle disk, a flush of as much."""
    number = 100
    trace = ["-msg", "timestamp=on", "-trace", "virtio_blk_*set_wce*"]
    head("ms from the request to its completion", "median", "99 of 100 within", "longest")
    with machine(props=QUEUES, deadline=3600, extra=trace, **THREADS) as vm:
        vm.load(OURS)
        taken: dict[str, list[float]] = {"flush": [], "through": [], "back": []}
        driver: list[float] = []
        for turn in range(number):
            vm.guest(f"vbwtool write /dev/vda 0 4096 {turn}")
            before = vm.host_stats()
            vm.guest("vbwtool fsync /dev/vda")
            after = vm.host_stats()
            assert after["flush_operations"] == before["flush_operations"] + 1
            taken["flush"].append((after["flush_total_time_ns"] - before["flush_total_time_ns"]) / 1e6)
            vm.guest(f"vbwtool write /dev/vda 0 4096 {turn}")
            device, guest = durations(vm, 1)
            for mode in device:
                taken[mode] += device[mode]
                driver += guest[mode]
        for what, values in (("idle, a flush of a write", taken["flush"]),
                             ("idle, to write through, after a write", taken["through"]),
                             ("idle, to write back", taken["back"]),
                             ("idle, the guest's part of a switch, system call to system call", driver)):
            percentiles(what, values)
        # What is read back is nothing to flush.
        load = start(vm, WRITES % 32)
        for mode, values in durations(vm, number)[0].items():
            percentiles(f"32 writes at a time, to write {mode}", values)
        end(load)


def percentiles(what: str, values: list[float]) -> None:
    """A row of times."""
    values = sorted(values)
    row(what, f"{statistics.median(values):.2f}", f"{values[len(values) * 99 // 100 - 1]:.2f}", f"{values[-1]:.2f}")


def pauses() -> None:
    """How long reads take beside writes, in either mode, with as much time in one as in the other, and with switches;
    in turns."""
    seconds, rate = 20, 9
    number = seconds * rate // 2
    change = "echo '%s' > /sys/block/vda/cache_type"
    commands = {"write back": f"sleep {seconds}", "write through": f"sleep {seconds}",
                "half of the time each": f"sleep {seconds // 2}; {change % 'write through'}; sleep {seconds // 2}",
                "switches": switching(number, 1 / rate)}
    with machine(props=QUEUES, deadline=3600, **THREADS) as vm:
        vm.load(OURS)
        writes = start(vm, WRITES % 8)
        rates: list[float] = []
        found: dict[str, list[tuple[float, ...]]] = {how: [] for how in commands}
        for _ in range(RUNS):
            for how, command in commands.items():
                mode = "write through" if how == "write through" else "write back"
                vm.guest(change % mode)
                vm.qmp("block-latency-histogram-set", id=DISK, **{"boundaries-read": LATENCIES})
                probe = vm.guest.start(FIO + PROBE + "--rw=randread")
                began = time.monotonic()
                vm.guest(command, 600)
                rates.append(2 * number / (time.monotonic() - began))
                end(probe)
                found[how].append((*completions(vm, "read"), nearly_all(vm)))
        head("ms for a read, one at a time, beside 8 writes at a time: medians of runs (least to most)", "median",
             "999 of 1000 within", "longest", "in QEMU, 999 of 1000 within")
        for how, runs in found.items():
            pace = f", {statistics.median(rates[3::4]):.1f} in a second" if how == "switches" else ""
            row(f"{how}{pace}", *(middle(list(values)) for values in zip(*runs)))
        end(writes)


def nearly_all(vm: VM) -> float:
    """Milliseconds that 999 of 1000 reads took at most in QEMU, since it has begun to count how many took how long."""
    stats, = (device["stats"] for device in vm.qmp("query-blockstats") if device.get("qdev") == DISK)
    bins = stats["rd_latency_histogram"]["bins"]
    counted = list(itertools.accumulate(bins))
    return next(bound for bound, number in zip((*LATENCIES, math.inf), counted) if number >= 0.999 * counted[-1]) / 1e6


def slow_flush() -> None:
    """What other writes see of a switch that has to flush for 2 s, and of none."""
    found: dict[str, list[tuple[float, ...]]] = {"no switch": [], "a switch": []}
    taken: list[float] = []
    for _ in range(RUNS):
        with tempfile.NamedTemporaryFile(dir=ENV.out) as image:
            image.truncate(64 * MIB)
            slow = {"event": "none", "iotype": "flush", "errno": 0, "delay-ns": 2_000_000_000, "once": True}
            node = {"driver": "blkdebug", "image": file_node(Path(image.name)), "inject-error": [slow]}
            with machine(disks=0, deadline=600, extra=attached("disk", raw_node(node))) as vm:
                slow_switch(vm, found, taken)
    head("ms for a write, one at a time, of which a switch flushes for 2 s: medians of runs (least to most)",
         "median", "999 of 1000 within", "longest", "s for the switch")
    for how, runs in found.items():
        row(how, *(middle(list(values)) for values in zip(*runs)), middle(taken) if how == "a switch" else "")


def slow_switch(vm: VM, found: dict[str, list[tuple[float, ...]]], taken: list[float]) -> None:
    """Once without the switch, and once with it."""
    vm.load(OURS)
    vm.guest(wait_for_disks(1))
    for how, command in (("no switch", "sleep 2"), ("a switch", "echo 'write through' > /sys/block/vda/cache_type")):
        probe = start(vm, FIO + PROBE + "--rw=randwrite")
        began = time.monotonic()
        vm.guest(command)
        if how == "a switch":
            taken.append(time.monotonic() - began)
            assert taken[-1] >= 2, "the flush was not slow"
        end(probe)
        found[how].append(completions(vm, "write"))


def completions(vm: VM, kind: str) -> tuple[float, ...]:
    """Milliseconds that requests of the fio that has just ended took: median, nearly all, longest."""
    report = vm.guest("cat /run/probe.out")
    # Before it is that fio was told to end.
    times = json.loads(report[report.index("{"):])["jobs"][0][kind]["clat_ns"]
    return tuple(value / 1e6 for value in (
        times["percentile"]["50.000000"], times["percentile"]["99.900000"], times["max"]))


def attached(name: str, node: dict[str, Any]) -> list[str]:
    """QEMU's arguments for another disk."""
    device = {"driver": "virtio-blk-pci", "id": name, "drive": f"{name}-node", "set-wce": True}
    return ["-blockdev", json.dumps({**node, "node-name": f"{name}-node"}), "-device", json.dumps(device)]


def qemu_io(vm: VM, command: str) -> None:
    """Do something with the disk whose reads can be stopped."""
    answer = vm.qmp("human-monitor-command", **{
        "command-line": f'qemu-io -d /machine/peripheral/stuck/virtio-backend "{command}"'})
    assert not answer, answer


def beside() -> None:
    """What the monitor and another disk's limit notice of 20 switches, and of none, while a third disk has a read
    that does not end."""
    limit, seconds = 5, 2
    null = {"driver": "null-co", "size": 64 * MIB, "read-zeroes": True}
    limits = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops_rd", "iops_wr"), 0)
    others = attached("stuck", raw_node({"driver": "blkdebug", "image": null})) + attached("limited", raw_node(null))
    with machine(deadline=3600, extra=others) as vm:
        vm.load(OURS)
        # The kernel looks for partitions on them, so whatever makes them slow comes later.
        vm.guest(wait_for_disks(3))
        vm.qmp("block_set_io_throttle", id="limited", iops=limit, **limits)
        qemu_io(vm, "break read_aio A")
        stuck = vm.guest.start("dd if=/dev/vdb of=/dev/null bs=4096 count=1 iflag=direct")
        waiting = vm.guest.start(FIO.replace("vda", "vdc") + "--rw=randread --ioengine=libaio --iodepth=32 "
                                                             "--output=/dev/null")
        for disk, number in (("vdb", 1), ("vdc", 32)):
            vm.guest(f"until [ $(awk '{{ print $1 }}' /sys/block/{disk}/inflight) -eq {number} ]; "
                     "do usleep 20000; done")
        commands = {"no switches": f"sleep {seconds}", "20 switches": switching(10, seconds / 20)}
        found: dict[str, list[tuple[float, ...]]] = {how: [] for how in commands}
        for _ in range(RUNS):
            for how, command in commands.items():
                done, began = vm.host_stats("limited")["rd_operations"], time.monotonic()
                job = vm.guest.start(command)
                answers: list[float] = []
                while job.running():
                    asked = time.monotonic()
                    vm.qmp("query-status")
                    answers.append((time.monotonic() - asked) * 1000)
                    time.sleep(0.001)
                assert job.wait().status == 0
                rate = (vm.host_stats("limited")["rd_operations"] - done) / (time.monotonic() - began)
                found[how].append((statistics.median(answers), max(answers), rate))
        # Both are as they were.
        assert stuck.running() and waiting.running()
        head(f"beside a read that does not end, and a disk with at most {limit} reads a second: medians of runs (least "
             "to most)", "ms for query-status, median", "longest", "reads of the other disk in a second")
        for how, runs in found.items():
            row(how, *(middle(list(values)) for values in zip(*runs)))
        qemu_io(vm, "resume A")
        assert stuck.wait(60).status == 0
        vm.qmp("block_set_io_throttle", id="limited", iops=0, **limits)
        end(waiting)


def neighbours() -> None:
    """What a guest with a disk of the storage daemon notices of another one, and how much of that it would if that
    one had a daemon of its own: then they share the processors alone."""
    seconds = 10
    found: dict[str, list[tuple[float, ...]]] = {}
    with daemon(ENV, 2) as shared, daemon(ENV, 1) as other, guest_of(ENV, shared[0]) as vm:
        vm.guest("echo 'write through' > /sys/block/vda/cache_type")
        for turn in range(RUNS):
            for company, behaviour in COMPANY.items():
                for where, export in (("its own", other[0]), ("the same", shared[1])):
                    if behaviour is None and where == "the same":
                        continue
                    probe = start(vm, FIO + PROBE + "--rw=randrw")
                    done = behaviour(ENV, export, seconds) if behaviour else time.sleep(seconds)
                    end(probe)
                    if behaviour:
                        assert done, f"{company} did nothing"
                    name = f"{company}, {where} daemon" if behaviour else company
                    found.setdefault(name, []).append(
                        (*completions(vm, "read"), *completions(vm, "write"), (done or 0) / seconds))
    head("ms for a request, one at a time, beside another guest: medians of runs (least to most)", "read, median",
         "999 of 1000 within", "write through, median", "999 of 1000 within", "longest",
         "requests of the other in a second")
    for name, runs in found.items():
        median, most, _, written, late, longest, rate = zip(*runs)
        row(name, *(middle(list(values)) for values in (median, most, written, late, longest)),
            f"{statistics.median(rate):,.0f}")


def sides() -> dict[str, Path]:
    """The QEMUs to compare: this one last, after those of the same release without its patches."""
    return {"stock": ENV.qemu_stock, "unpatched": Path(os.environ["VBW_QEMU_UNPATCHED"]),
            "repaired": Path(os.environ["VBW_QEMU_REPAIRED"]), "ours": ENV.qemu}


def writes_per_second(program: Path, image: Path, engine: str, depth: int, step: int, number: int,
                      flushed: bool) -> float:
    """Of 4 KiB, each `step` bytes after the one before, with qemu-img: in write back with a flush after each `depth`
    of them, or in write through."""
    options = f"driver=raw,file.driver=file,file.filename={image}"
    # Linux AIO is only there with O_DIRECT.
    through, back = ("directsync", "none") if engine == "native" else ("writethrough", "writeback")
    mode = ["-t", back, f"--flush-interval={depth}"] if flushed else ["-t", through]
    output = subprocess.run(
        [program / "qemu-img", "bench", "-w", "-c", str(number), "-d", str(depth), "-s", "4096", "-S", str(step),
         *mode, "-i", engine, "--image-opts", options], check=True, capture_output=True, text=True).stdout
    return number / float(re.search(r"completed in ([\d.]+) sec", output).group(1))  # type: ignore[union-attr]


def synchronous() -> None:
    """Writes per second in write through. Stock QEMU does without some of the flushes that it owes; the repaired
    one has the patches up to the one that mends that."""
    table_of_writes("4 KiB writes in a second, write through", (1, 2, 4, 8, 32), flushed=False)


def flushes() -> None:
    """Writes per second in write back, when the guest flushes often."""
    table_of_writes("4 KiB writes in a second, write back, and a flush after as many as are in flight", (1, 8, 32),
                    flushed=True)


def table_of_writes(title: str, depths: tuple[int, ...], flushed: bool) -> None:
    """Writes per second of all QEMUs."""
    for side, folder in sides().items():
        version = subprocess.run([folder / "qemu-img", "--version"], check=True, capture_output=True, text=True).stdout
        print(f"{side}: {version.splitlines()[0]}")
    head(title, *sides(), "of stock", "of repaired", "spread")
    for place, where in (("tmpfs", "/tmp"), ("disk", ENV.out)):
        with tempfile.TemporaryDirectory(dir=where) as folder:
            image = Path(folder) / "image"
            # Written before, so that no write has to allocate.
            image.write_bytes(bytes(range(256)) * (64 * MIB // 256))
            subprocess.run(["sync", "-f", image], check=True)
            for engine in ("threads", "io_uring", "native"):
                for depth in depths:
                    for pattern, step in STEPS.items():
                        bench(f"{place}, {engine}, {depth} at a time, {pattern}",
                              functools.partial(writes_per_second, image=image, engine=engine, depth=depth, step=step,
                                                flushed=flushed))


def bench(what: str, rate: Callable[..., float]) -> None:
    """A row: medians of runs that take turns."""
    if not re.search(ROWS, what):
        return
    measured: dict[str, list[float]] = {side: [] for side in sides()}
    try:
        # Of a second or so each.
        number = int(min(rate(program, number=1000) for program in sides().values())) + 1000
        for _ in range(RUNS):
            for side, program in sides().items():
                measured[side].append(rate(program, number=number))
    except subprocess.CalledProcessError as error:
        row(what, error.stderr.strip().splitlines()[-1], *[""] * 6)
        return
    found = {side: statistics.median(values) for side, values in measured.items()}
    row(what, *(f"{value:,.0f}" for value in found.values()), f"{found['ours'] / found['stock']:.2f}",
        f"{found['ours'] / found['repaired']:.2f}", spread(measured.values()))


def alone() -> None:
    """What one write at a time takes in write through, where a device that has been asked for the feature writes to
    a second descriptor. Debian's QEMU cannot do without a guest."""
    programs = {side: program for side, program in sides().items() if side != "stock"}
    head("us for a 4 KiB write, one at a time, write through", *programs, "repaired's to ours", "spread")
    for place, where in (("tmpfs", "/tmp"), ("disk", ENV.out)):
        with tempfile.TemporaryDirectory(dir=where) as folder:
            image = Path(folder) / "image"
            # Written before, so that no write has to allocate.
            image.write_bytes(bytes(range(256)) * (64 * MIB // 256))
            subprocess.run(["sync", "-f", image], check=True)
            for engine in ("threads", "io_uring"):
                for pattern, step in STEPS.items():
                    measured: dict[str, list[float]] = {side: [] for side in programs}
                    for _ in range(RUNS):
                        for side, program in programs.items():
                            measured[side].append(microseconds(program, image, engine, step, side == "ours"))
                    found = {side: statistics.median(values) for side, values in measured.items()}
                    row(f"{place}, {engine}, {pattern}", *(f"{value:.0f}" for value in found.values()),
                        f"{found['repaired'] / found['ours']:.2f}", spread(measured.values()))


def microseconds(program: Path, image: Path, engine: str, step: int, set_wce: bool) -> float:
    """The median of what a write takes, from before the notification to its end."""
    number = 1000
    with tempfile.TemporaryDirectory(prefix="vbw-") as folder:
        # The driver, which does not sleep, has a processor of its own, and QEMU's threads share another one.
        processors = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {0})
        disk = BareDisk(["taskset", "-c", "1", program / "qemu-system-x86_64"], Path(folder),
                        drive(f"file,filename={image},aio={engine}", ",set-wce=on" if set_wce else ""))
        try:
            # Without FLUSH.
            disk.start(0)
            taken = []
            for index in range(number):
                disk.prepare("write", [index * step // 512 % (63 * MIB // 512) // 8 * 8])
                taken.append(disk.seconds())
        finally:
            disk.close()
            os.sched_setaffinity(0, processors)
    return statistics.median(taken) * 1e6


def instructions() -> None:
    """What a request costs in QEMU when nobody has asked for the feature."""
    head("instructions of QEMU for a request, set-wce=off", "unpatched", "ours", "ratio", "spread")
    for kind in ("read", "write", "flush"):
        runs: dict[str, list[float]] = {side: [] for side in ("unpatched", "ours")}
        for _ in range(RUNS):
            for side, values in runs.items():
                values.append(per_request(sides()[side] / "qemu-system-x86_64", kind))
        before, after = (statistics.median(values) for values in runs.values())
        row(kind, f"{before:,.0f}", f"{after:,.0f}", f"{after / before:.4f}", spread(runs.values()))


def errors() -> None:
    """Failed writes that are reported as done, in write through, by the judge of make prove."""
    head("a file that cannot be made durable in a part, write through", "failed", "acknowledged",
         "of these not durable", "the same with stock QEMU")
    for name, way in files.WAYS.items():
        ours, stock = (lost_of(name, way, stock, FAILED) for stock in (False, True))
        row(name, f"{ours[0]:,}", f"{ours[1]:,}", f"{ours[2]:,}", f"{stock[2]:,} of {stock[1]:,}, {stock[0]:,} failed")


def lost_of(name: str, way: dict, stock: bool, least: int) -> tuple[int, int, int]:
    """Failed writes, acknowledged ones, and those of them that were lost, until enough have failed."""
    failed = acknowledged = lost = turn = 0
    while failed < least:
        entry = trials.Trial(f"L1-{name}-measured", lambda bench: files.defect(bench, way, stock), "")
        result = trials.run(ENV, entry, trials.seed_of(1, entry.name, turn), 20)
        if result.broken or result.skipped:
            raise RuntimeError(result.broken or result.skipped)
        failed += result.notes["failed"]
        acknowledged += result.acknowledged
        lost += result.lost
        turn += 1
    return failed, acknowledged, lost


if __name__ == "__main__":
    measure("measure-host", {
        "switches": switches, "latency": latency, "pauses": pauses, "slow-flush": slow_flush, "beside": beside,
        "neighbours": neighbours, "synchronous": synchronous, "flushes": flushes, "alone": alone,
        "instructions": instructions, "errors": errors})
