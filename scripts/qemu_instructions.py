# SPDX-License-Identifier: GPL-2.0
"""How many instructions QEMU's first thread executes for a request of a virtio block device, its part of a
notification included.

There is no guest: a driver of a few lines fills the ring in memory that it shares with QEMU, and the only thing
that it asks QEMU for, with the qtest protocol, is the notification. The disk is null-co, so that what is
counted by steps.c is the device and the block layer.
"""

import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path

MEMORY = 64 << 20
QUEUE_SIZE = 256
# As many requests as the driver makes available at a time, and how many times that is counted.
BATCH, BATCHES = 32, 5
DESC, AVAIL, USED, HEADERS, STATUS, DATA = 0x100000, 0x110000, 0x120000, 0x130000, 0x140000, 0x200000
KINDS = {"read": (0, True), "write": (1, True), "flush": (4, False)}
NEXT, WRITE = 1, 2

MMIO, STRIDE, TRANSPORTS = 0xfeb00000, 0x200, 24
DEVICE_ID, FEATURES, FEATURES_SELECT = 0x008, 0x020, 0x024
QUEUE_NUM, QUEUE_READY, NOTIFY, DEVICE_STATUS = 0x038, 0x044, 0x050, 0x070
ADDRESSES = {0x080: DESC, 0x090: AVAIL, 0x0a0: USED}
FLUSH, VERSION_1 = 1 << 9, 1 << 32


class Device:
    """QEMU with one disk, and the driver of it."""

    def __init__(self, qemu: Path, folder: Path, steps: Path) -> None:
        self._memory_file = (folder / "memory").open("w+b")
        self._memory_file.truncate(MEMORY)
        self._memory = mmap.mmap(self._memory_file.fileno(), MEMORY)
        self._available = 0
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "qtest"))
            listener.listen()
            listener.settimeout(60)
            self._process = subprocess.Popen(
                [steps, qemu, "-nodefaults", "-no-user-config", "-display", "none", "-accel", "qtest",
                 "-qtest", f"unix:{folder / 'qtest'}", "-qtest-log", "none",
                 "-machine", "microvm,memory-backend=memory", "-m", "64",
                 "-object", f"memory-backend-file,id=memory,size=64M,share=on,mem-path={folder / 'memory'}",
                 "-global", "virtio-mmio.force-legacy=false",
                 "-blockdev", "null-co,node-name=disk,size=1073741824", "-device", "virtio-blk-device,drive=disk"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._connection, _ = listener.accept()
        self._answers = self._connection.makefile("r")
        self._qemu = int(Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text())

    def close(self) -> None:
        """End QEMU."""
        self._connection.close()
        self._process.communicate()

    def _ask(self, command: str) -> str:
        self._connection.sendall(f"{command}\n".encode())
        answer = self._answers.readline().split()
        assert answer and answer[0] == "OK", f"{command}: {answer}"
        return answer[-1]

    def _write(self, register: int, value: int) -> None:
        self._ask(f"writel {self._base + register:#x} {value:#x}")

    def start(self) -> None:
        """Find the device, and be its driver."""
        self._base = next(MMIO + number * STRIDE for number in range(TRANSPORTS)
                          if int(self._ask(f"readl {MMIO + number * STRIDE + DEVICE_ID:#x}"), 16) == 2)
        for status in (0, 1, 3):
            self._write(DEVICE_STATUS, status)
        for half in (0, 1):
            self._write(FEATURES_SELECT, half)
            self._write(FEATURES, (FLUSH | VERSION_1) >> (32 * half) & 0xffffffff)
        self._write(DEVICE_STATUS, 11)
        self._write(QUEUE_NUM, QUEUE_SIZE)
        for register, address in ADDRESSES.items():
            self._write(register, address)
        self._write(QUEUE_READY, 1)
        self._write(DEVICE_STATUS, 15)

    def prepare(self, kind: str) -> None:
        """Describe a batch of requests, none of which can be merged with another one."""
        number, has_data = KINDS[kind]
        for slot in range(BATCH):
            parts = [(HEADERS + 16 * slot, 16, 0), (STATUS + slot, 1, WRITE)]
            if has_data:
                parts.insert(1, (DATA + 4096 * slot, 4096, WRITE if kind == "read" else 0))
            struct.pack_into("<IIQ", self._memory, HEADERS + 16 * slot, number, 0, 64 * slot)
            for index, (address, length, flags) in enumerate(parts):
                here, last = 3 * slot + index, index == len(parts) - 1
                struct.pack_into("<QIHH", self._memory, DESC + 16 * here, address, length,
                                 flags | (0 if last else NEXT), 0 if last else here + 1)

    def run(self) -> None:
        """Have the batch done, and wait until QEMU has nothing to do any more."""
        self._memory[STATUS:STATUS + BATCH] = b"\xff" * BATCH
        for slot in range(BATCH):
            struct.pack_into("<H", self._memory, AVAIL + 4 + 2 * ((self._available + slot) % QUEUE_SIZE), 3 * slot)
        self._available = (self._available + BATCH) % 65536
        struct.pack_into("<H", self._memory, AVAIL + 2, self._available)
        self._write(NOTIFY, 0)
        end, idle = time.monotonic() + 300, 0
        while idle < 5:
            time.sleep(0.002)
            used, = struct.unpack_from("<H", self._memory, USED + 2)
            state = Path(f"/proc/{self._qemu}/stat").read_text().rpartition(")")[2].split()[0]
            idle = idle + 1 if used == self._available and state == "S" else 0
            assert time.monotonic() < end, f"QEMU is in state {state}, with {used} of {self._available} requests done"
        assert self._memory[STATUS:STATUS + BATCH] == bytes(BATCH), "requests failed"

    def count(self) -> int:
        """The same, counted."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("count\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "started\n"
        self.run()
        while not select.select([self._process.stdout], [], [], 0.01)[0]:
            os.kill(self._process.pid, signal.SIGUSR1)
        return int(self._process.stdout.readline())


def per_request(qemu: Path, kind: str) -> float:
    """Instructions for a request of a kind."""
    with tempfile.TemporaryDirectory(prefix="vbw-") as name:
        folder = Path(name)
        steps = folder / "steps"
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", steps,
                        Path(__file__).with_name("steps.c")], check=True)
        device = Device(qemu, folder, steps)
        try:
            device.start()
            device.prepare(kind)
            # What is allocated once and for all is not counted.
            device.run()
            counts = [device.count() for _ in range(BATCHES)]
        finally:
            device.close()
    # Whatever else wakes the thread up only adds to it.
    return min(counts) / BATCH
