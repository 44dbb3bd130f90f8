# SPDX-License-Identifier: GPL-2.0
"""How many instructions QEMU's first thread executes for a request of a virtio block device, its part of a
notification included. The disk is null-co, so that what steps.c counts is the device and the block layer.
"""

import os
import select
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from bare_disk import FLUSH, BareDisk, drive

# As many requests as the driver makes available at a time, and how many times that is counted.
BATCH, BATCHES = 32, 5


def run(disk: BareDisk, qemu: int) -> None:
    """Have a batch done, and wait until QEMU has nothing to do any more."""
    disk.submit()
    end, idle = time.monotonic() + 300, 0
    while idle < 5:
        time.sleep(0.002)
        state = Path(f"/proc/{qemu}/stat").read_text().rpartition(")")[2].split()[0]
        idle = idle + 1 if disk.done() and state == "S" else 0
        assert time.monotonic() < end, f"QEMU is in state {state}, and requests have not ended"
    disk.check()


def count(disk: BareDisk, qemu: int) -> int:
    """The same, counted."""
    steps = disk.process
    assert steps.stdin and steps.stdout
    steps.stdin.write("count\n")
    steps.stdin.flush()
    assert steps.stdout.readline() == "started\n"
    run(disk, qemu)
    while not select.select([steps.stdout], [], [], 0.01)[0]:
        os.kill(steps.pid, signal.SIGUSR1)
    return int(steps.stdout.readline())


def per_request(qemu: Path, kind: str) -> float:
    """Instructions for a request of a kind."""
    with tempfile.TemporaryDirectory(prefix="vbw-") as name:
        folder = Path(name)
        steps = folder / "steps"
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", steps,
                        Path(__file__).with_name("steps.c")], check=True)
        disk = BareDisk([steps, qemu], folder, drive("null-co,size=1073741824"))
        pid = disk.process.pid
        process = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
        try:
            disk.start(FLUSH)
            # None can be merged with another one.
            disk.prepare(kind, [64 * slot for slot in range(BATCH)])
            # What is allocated once and for all is not counted.
            run(disk, process)
            counts = [count(disk, process) for _ in range(BATCHES)]
        finally:
            disk.close()
    # Whatever else wakes the thread up only adds to it.
    return min(counts) / BATCH
