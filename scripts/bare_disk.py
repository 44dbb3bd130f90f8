# SPDX-License-Identifier: GPL-2.0
"""QEMU with one virtio block device and no guest.

A driver of a few lines fills the ring in memory that it shares with QEMU, and the only thing that it asks QEMU for,
with the qtest protocol, is the notification. So what is measured is the device and the block layer.
"""

import mmap
import socket
import struct
import subprocess
import time
from pathlib import Path

MEMORY = 64 << 20
QUEUE_SIZE = 256
DESC, AVAIL, USED, HEADERS, STATUS, DATA = 0x100000, 0x110000, 0x120000, 0x130000, 0x140000, 0x200000
KINDS = {"read": (0, True), "write": (1, True), "flush": (4, False)}
NEXT, WRITE = 1, 2
# Descriptors that a request may have, and bytes that its data may have.
CHAIN, ROOM = 3, 4096

MMIO, STRIDE, TRANSPORTS = 0xfeb00000, 0x200, 24
DEVICE_ID, FEATURES, FEATURES_SELECT = 0x008, 0x020, 0x024
QUEUE_NUM, QUEUE_READY, NOTIFY, DEVICE_STATUS = 0x038, 0x044, 0x050, 0x070
ADDRESSES = {0x080: DESC, 0x090: AVAIL, 0x0a0: USED}
FLUSH, VERSION_1 = 1 << 9, 1 << 32


def drive(node: str, properties: str = "") -> list[str]:
    """QEMU's arguments for a disk with that node."""
    return ["-blockdev", f"{node},node-name=disk", "-device", f"virtio-blk-device,drive=disk{properties}"]


class BareDisk:
    """QEMU with one disk, and the driver of it."""

    def __init__(self, command: list[str | Path], folder: Path, disk: list[str]) -> None:
        self._memory_file = (folder / "memory").open("w+b")
        self._memory_file.truncate(MEMORY)
        self._memory = mmap.mmap(self._memory_file.fileno(), MEMORY)
        self._available = 0
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "qtest"))
            listener.listen()
            listener.settimeout(60)
            self.process = subprocess.Popen(
                [*command, "-nodefaults", "-no-user-config", "-display", "none", "-accel", "qtest",
                 "-qtest", f"unix:{folder / 'qtest'}", "-qtest-log", "none",
                 "-machine", "microvm,memory-backend=memory", "-m", "64",
                 "-object", f"memory-backend-file,id=memory,size=64M,share=on,mem-path={folder / 'memory'}",
                 "-global", "virtio-mmio.force-legacy=false", *disk],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            try:
                self._connection, _ = listener.accept()
            except BaseException:
                self.process.kill()
                self.process.communicate()
                raise
        self._answers = self._connection.makefile("r")

    def close(self) -> None:
        """End QEMU."""
        self._connection.close()
        self.process.kill()
        self.process.communicate()
        self._memory.close()
        self._memory_file.close()

    def _ask(self, command: str) -> str:
        self._connection.sendall(f"{command}\n".encode())
        answer = self._answers.readline().split()
        assert answer and answer[0] == "OK", f"{command}: {answer}"
        return answer[-1]

    def _write(self, register: int, value: int) -> None:
        self._ask(f"writel {self._base + register:#x} {value:#x}")

    def start(self, features: int) -> None:
        """Find the device, and be its driver. One that does not take FLUSH has a device that writes through."""
        self._base = next(MMIO + number * STRIDE for number in range(TRANSPORTS)
                          if int(self._ask(f"readl {MMIO + number * STRIDE + DEVICE_ID:#x}"), 16) == 2)
        for status in (0, 1, 3):
            self._write(DEVICE_STATUS, status)
        # It begins with empty rings.
        self._available = 0
        self._memory[AVAIL:AVAIL + 4] = self._memory[USED:USED + 4] = bytes(4)
        for half in (0, 1):
            self._write(FEATURES_SELECT, half)
            self._write(FEATURES, (features | VERSION_1) >> (32 * half) & 0xffffffff)
        self._write(DEVICE_STATUS, 11)
        self._write(QUEUE_NUM, QUEUE_SIZE)
        for register, address in ADDRESSES.items():
            self._write(register, address)
        self._write(QUEUE_READY, 1)
        self._write(DEVICE_STATUS, 15)

    def prepare(self, kind: str, sectors: list[int]) -> None:
        """Describe a batch of requests of 4 KiB, one for each of these sectors."""
        number, has_data = KINDS[kind]
        self._batch = len(sectors)
        for slot, sector in enumerate(sectors):
            length = ROOM if has_data else 0
            self.describe(slot, number, sector, length, WRITE if kind == "read" else 0)

    def describe(self, slot: int, number: int, sector: int, length: int, flags: int) -> None:
        """Describe a request of a type, and with data of some length, or none."""
        parts = [(HEADERS + 16 * slot, 16, 0), (STATUS + slot, 1, WRITE)]
        if length:
            parts.insert(1, (DATA + ROOM * slot, length, flags))
        struct.pack_into("<IIQ", self._memory, HEADERS + 16 * slot, number, 0, sector)
        for index, (address, size, how) in enumerate(parts):
            last = index == len(parts) - 1
            self.descriptor(CHAIN * slot + index, address, size, how | (0 if last else NEXT),
                            0 if last else CHAIN * slot + index + 1)

    def descriptor(self, at: int, address: int, length: int, flags: int, following: int) -> None:
        """Write one descriptor."""
        struct.pack_into("<QIHH", self._memory, DESC + 16 * at, address, length, flags, following)

    def data(self, slot: int, value: bytes) -> None:
        """Write the data of a request."""
        self._memory[DATA + ROOM * slot:DATA + ROOM * slot + len(value)] = value

    def submit(self, batch: int | None = None) -> None:
        """Make the batch available, or so many requests that were described one by one, and notify."""
        self._batch = self._batch if batch is None else batch
        self._memory[STATUS:STATUS + self._batch] = b"\xff" * self._batch
        for slot in range(self._batch):
            struct.pack_into("<H", self._memory, AVAIL + 4 + 2 * ((self._available + slot) % QUEUE_SIZE), CHAIN * slot)
        self._available = (self._available + self._batch) % 65536
        struct.pack_into("<H", self._memory, AVAIL + 2, self._available)
        self._write(NOTIFY, 0)

    def done(self) -> bool:
        """Whether all requests have ended."""
        used, = struct.unpack_from("<H", self._memory, USED + 2)
        return used == self._available

    def check(self) -> None:
        """None may have failed."""
        assert self._memory[STATUS:STATUS + self._batch] == bytes(self._batch), "requests failed"

    def seconds(self) -> float:
        """What the batch takes, from before the notification to its end."""
        began = time.perf_counter()
        self.submit()
        while not self.done():
            assert time.perf_counter() - began < 60, "a request does not end"
        taken = time.perf_counter() - began
        self.check()
        return taken
