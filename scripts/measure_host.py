#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What a switch costs on the host, and what write through does; see measure-host.sh."""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from measure import ENV, MIB, head, machine, measure, row, spread
from prove import files, trials
from vbw import descriptors
from vbw.vm import OURS, STOCK, VM

RUNS = 5
# How many failed writes there have to be.
FAILED = int(os.environ.get("VBW_FAILED", "2000"))

# Four queues in two threads, and what fio keeps busy.
THREADS = {"cpus": 4, "extra_first": ["-object", "iothread,id=io0", "-object", "iothread,id=io1"]}
QUEUES = {"num-queues": 4, "iothread-vq-mapping": [{"iothread": "io0"}, {"iothread": "io1"}]}
FIO = "fio --name=load --filename=/dev/vda --size=16m --bs=4k --direct=1 --time_based --runtime=3600 "
BUSY = FIO + ("--rw=randwrite --ioengine=libaio --iodepth=32 --verify=crc32c --verify_fatal=1 "
              "--verify_backlog=256 --output=/run/busy.out")

# How far it is from one write to the next. File systems keep neighbours together, and so write them together.
STEPS = {"neighbours": 4096, "scattered": MIB + 4096}

SWITCH = """cd /sys/block/vda; n=0; while [ $n -lt %d ]; do
    echo 'write through' > cache_type && echo 'write back' > cache_type || exit 1; n=$((n + 1)); done"""


def resident(vm: VM) -> int:
    """KiB of QEMU's memory, without the guest's and without the code that its code was translated to."""
    total, counted = 0, False
    for line in Path(f"/proc/{descriptors.qemu_pid(vm)}/smaps").read_text().splitlines():
        if area := re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line):
            size = int(area[2], 16) - int(area[1], 16)
            counted = size != vm.config.memory_mb * MIB and "x" not in area[3]
        elif counted and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


def opened(vm: VM) -> int:
    """How many descriptors QEMU has."""
    return len(list(Path(f"/proc/{descriptors.qemu_pid(vm)}/fd").iterdir()))


def switches() -> None:
    """10,000 switches under load: what fails, and what is left behind."""
    rounds, times = 100, 50
    head("switches that succeeded", "s", "descriptors of QEMU", "KiB of its memory")
    with machine(props=QUEUES, deadline=7200, **THREADS) as vm:
        vm.load(OURS)
        load = vm.guest.start(BUSY)
        began = time.monotonic()
        for number in range(rounds + 1):
            # The first ones are not counted: what is allocated once and for all is after them.
            if number in (1, 1 + rounds // 2):
                row(2 * times * (number - 1), f"{time.monotonic() - began:.0f}", opened(vm), resident(vm))
            vm.guest(SWITCH % times, 600)
        row(2 * times * rounds, f"{time.monotonic() - began:.0f}", opened(vm), resident(vm))
        assert load.running(), load.wait().text
        load.signal("INT")
        load.wait()
        assert "err= 0" in vm.guest("cat /run/busy.out")


def durations(vm: VM, number: int) -> dict[str, list[float]]:
    """Milliseconds that the device takes for each of the switches that the guest makes now."""
    log = vm.folder / "qemu.log"
    before = log.stat().st_size
    vm.guest(SWITCH % number, 600)
    began, taken = 0.0, dict[str, list[float]](through=[], back=[])
    pattern = r"^\d+@([\d.]+):virtio_blk_(handle_set_wce|set_wce_complete) .* wce (\d)"
    with log.open() as file:
        file.seek(before)
        for second, event, mode in re.findall(pattern, file.read(), re.M):
            if event == "handle_set_wce":
                began = float(second)
            else:
                taken["back" if mode == "1" else "through"].append((float(second) - began) * 1000)
    assert len(taken["through"]) == len(taken["back"]) == number
    return taken


def latency() -> None:
    """From the request to its completion, and the longest time that other requests take meanwhile."""
    number = 100
    trace = ["-msg", "timestamp=on", "-trace", "virtio_blk_*set_wce*"]
    head("ms from the request to its completion", "median", "99 of 100 within", "longest")
    with machine(props=QUEUES, deadline=3600, extra=trace, **THREADS) as vm:
        vm.load(OURS)
        for what, command in (("idle", ""), ("32 writes at a time", BUSY)):
            load = vm.guest.start(command) if command else None
            for mode, taken in durations(vm, number).items():
                taken.sort()
                row(f"{what}, to write {mode}", f"{statistics.median(taken):.2f}",
                    f"{taken[number * 99 // 100 - 1]:.2f}", f"{taken[-1]:.2f}")
            if load:
                load.signal("INT")
                load.wait()
    print()
    head("ms for a read, one at a time, beside 8 writes at a time", "median", "999 of 1000 within", "longest")
    for what, driver, stock in (("this pair", OURS, False), ("stock QEMU, virtio_blk", STOCK, True)):
        with machine(props=QUEUES, deadline=3600, stock_qemu=stock, **THREADS) as vm:
            vm.load(driver)
            pauses(what, vm, number)


def pauses(what: str, vm: VM, number: int) -> None:
    """Two rows: how long reads take without switches, and with some."""
    beside = vm.guest.start(FIO + "--rw=randwrite --ioengine=libaio --iodepth=8 --output=/dev/null")
    for how, command in (("no switches", "sleep 20"), ("switches", SWITCH % number)):
        probe = vm.guest.start(FIO + "--rw=randread --ioengine=psync --output-format=json "
                                     "--output=/run/probe.out")
        began = time.monotonic()
        vm.guest(command, 600)
        seconds = time.monotonic() - began
        probe.signal("INT")
        probe.wait()
        report = vm.guest("cat /run/probe.out")
        # Before it is that fio was told to end.
        times = json.loads(report[report.index("{"):])["jobs"][0]["read"]["clat_ns"]
        rate = f", {2 * number / seconds:.0f} in a second" if how == "switches" else ""
        row(f"{what}, {how}{rate}", *(f"{value / 1e6:.2f}" for value in (
            times["percentile"]["50.000000"], times["percentile"]["99.900000"], times["max"])))
    beside.signal("INT")
    beside.wait()


def writes_per_second(image: Path, engine: str, depth: int, step: int, ours: bool, number: int) -> float:
    """Of 4 KiB, each `step` bytes after the one before, with qemu-img. Stock QEMU does without some of
    the flushes that it owes."""
    options = f"driver=raw,file.driver=file,file.filename={image}"
    program = (ENV.qemu if ours else ENV.qemu_stock) / "qemu-img"
    # Linux AIO is only there with O_DIRECT.
    mode = "directsync" if engine == "native" else "writethrough"
    output = subprocess.run(
        [program, "bench", "-w", "-c", str(number), "-d", str(depth), "-s", "4096", "-S", str(step), "-t", mode,
         "-i", engine, "--image-opts", options], check=True, capture_output=True, text=True).stdout
    return number / float(re.search(r"completed in ([\d.]+) sec", output).group(1))  # type: ignore[union-attr]


def synchronous() -> None:
    """Writes per second in write through, as this QEMU and stock QEMU do it."""
    version = subprocess.run([ENV.qemu_stock / "qemu-img", "--version"], check=True,
                             capture_output=True, text=True).stdout
    print("stock:", version.splitlines()[0])
    head("4 KiB writes in a second, write through", "stock", "this QEMU", "ratio", "spread")
    for place, where in (("tmpfs", "/tmp"), ("disk", ENV.out)):
        with tempfile.TemporaryDirectory(dir=where) as folder:
            image = Path(folder) / "image"
            # Written before, so that no write has to allocate.
            image.write_bytes(bytes(range(256)) * (64 * MIB // 256))
            subprocess.run(["sync", "-f", image], check=True)
            for engine in ("threads", "io_uring", "native"):
                for depth in (1, 32):
                    for pattern, step in STEPS.items():
                        bench(f"{place}, {engine}, {depth} at a time, {pattern}", image, engine, depth, step)


def bench(what: str, image: Path, engine: str, depth: int, step: int) -> None:
    """A row: medians of runs that take turns."""
    measured: dict[bool, list[float]] = {False: [], True: []}
    try:
        # Of a second or so each.
        number = int(min(writes_per_second(image, engine, depth, step, ours, 1000) for ours in measured)) + 1000
        for _ in range(RUNS):
            for ours, values in measured.items():
                values.append(writes_per_second(image, engine, depth, step, ours, number))
    except subprocess.CalledProcessError as error:
        row(what, error.stderr.strip().splitlines()[-1], "", "", "")
        return
    stock, ours = (statistics.median(values) for values in measured.values())
    row(what, f"{stock:,.0f}", f"{ours:,.0f}", f"{ours / stock:.2f}", spread(measured.values()))


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
    measure("measure-host", {"switches": switches, "latency": latency, "synchronous": synchronous, "errors": errors})
