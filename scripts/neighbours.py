# SPDX-License-Identifier: GPL-2.0
"""A guest with a disk of QEMU's storage daemon, and another one that is not a good neighbour.

That one is a driver of a few lines in a QEMU without a guest, so it does whatever it likes with its rings."""

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bare_disk import CHAIN, DATA, FLUSH, MEMORY, NEXT, BareDisk
from vbw.env import Env
from vbw.machine import Config
from vbw.vm import OURS, VM, wait_for_disks

SIZE = 64 << 20
SET_WCE, SET_WCE_FEATURE = 33, 1 << 23
# Requests that the neighbour has in flight.
BATCH = 64
# How long one that is malformed may take to be noticed.
MOMENT = 0.002


@contextmanager
def daemon(env: Env, exports: int) -> Iterator[list[Path]]:
    """A storage daemon with so many disks; gives their sockets."""
    with tempfile.TemporaryDirectory(dir=env.out) as images, tempfile.TemporaryDirectory(prefix="vbw-") as sockets:
        command: list[str] = ["setpriv", "--pdeathsig", "KILL", str(env.qemu / "qemu-storage-daemon")]
        paths = [Path(sockets) / f"export{number}" for number in range(exports)]
        for number, path in enumerate(paths):
            image = Path(images) / f"disk{number}.img"
            with image.open("wb") as file:
                file.truncate(SIZE)
            command += ["--blockdev", json.dumps({"driver": "file", "filename": str(image),
                                                  "node-name": f"node{number}"}),
                        "--export", json.dumps({"type": "vhost-user-blk", "id": f"export{number}", "writable": True,
                                                "node-name": f"node{number}", "set-wce": True,
                                                "addr": {"type": "unix", "path": str(path)}})]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 30
            while not all(path.exists() for path in paths):
                assert process.poll() is None and time.monotonic() < deadline, "the daemon does not start"
                time.sleep(0.02)
            yield paths
        finally:
            process.kill()
            process.wait()


def _device(driver: str, export: Path) -> list[str]:
    return ["-chardev", f"socket,id=export,path={export}",
            "-device", f"{driver},chardev=export,num-queues=1,set-wce=on"]


@contextmanager
def guest_of(env: Env, export: Path) -> Iterator[VM]:
    """A guest with that disk."""
    config = Config(deadline=3600, extra=[
        "-object", "memory-backend-memfd,id=memory,size=512M,share=on", "-machine", "memory-backend=memory",
        *_device("vhost-user-blk-pci", export)])
    with tempfile.TemporaryDirectory(dir=env.out) as name:
        vm = VM(env, config, Path(name))
        vm.start()
        try:
            vm.load(OURS)
            vm.guest(wait_for_disks(1))
            yield vm
            vm.finish()
        finally:
            vm.kill()


@contextmanager
def _neighbour(env: Env, export: Path) -> Iterator[BareDisk]:
    with tempfile.TemporaryDirectory(prefix="vbw-") as name:
        disk = BareDisk([env.qemu / "qemu-system-x86_64"], Path(name), _device("vhost-user-blk", export))
        try:
            yield disk
        finally:
            disk.close()


def _wait(disk: BareDisk, seconds: float = 60) -> bool:
    """Whether all that is in flight has ended in time."""
    deadline = time.monotonic() + seconds
    while not disk.done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.0002)
    return True


def _reads(env: Env, export: Path, seconds: float) -> int:
    """A guest that does what guests do."""
    done = 0
    with _neighbour(env, export) as disk:
        disk.start(FLUSH)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            disk.prepare("read", [(done + slot) * 4999 % (SIZE // 4096) * 8 for slot in range(BATCH)])
            disk.submit()
            assert _wait(disk), "reads do not end"
            disk.check()
            done += BATCH
    return done


def _switches(env: Env, export: Path, seconds: float) -> int:
    """Every request is a switch, each to the other mode than the one before."""
    done = 0
    with _neighbour(env, export) as disk:
        disk.start(FLUSH | SET_WCE_FEATURE)
        for slot in range(BATCH):
            disk.describe(slot, SET_WCE, 0, 1, 0)
            disk.data(slot, bytes([slot % 2]))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            disk.submit(BATCH)
            assert _wait(disk), "switches do not end"
            disk.check()
            done += BATCH
    return done


def _malformed(env: Env, export: Path, seconds: float) -> int:
    """Switches of impossible lengths, to impossible modes, without room for a status, in descriptors that are a ring or
    not in memory; and a reset after each batch, as the device may have given up."""
    done = 0
    with _neighbour(env, export) as disk:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            disk.start(FLUSH | SET_WCE_FEATURE)
            for slot in range(BATCH):
                disk.describe(slot, SET_WCE, 0, (1, 2, 4096)[slot % 3], 0)
                disk.data(slot, bytes([slot]) * 2)
            # The last one, so that those before it are looked at.
            last = CHAIN * (BATCH - 1)
            way = done // BATCH % 4
            if way == 0:
                disk.descriptor(last + 1, DATA, 1, NEXT, last)
            elif way == 1:
                disk.descriptor(last + 1, MEMORY, 4096, 0, 0)
            elif way == 2:
                disk.descriptor(last, DATA, 1, 0, 0)
            else:
                disk.descriptor(last, DATA, 16, NEXT, 0xffff)
            disk.submit(BATCH)
            # A device that has given up answers no more.
            _wait(disk, MOMENT)
            done += BATCH
    return done


# What the other guest does, in order of how bad that is; returns how many requests that were.
COMPANY: dict[str, Callable[[Env, Path, float], int] | None] = {
    "nobody": None,
    f"{BATCH} reads at a time": _reads,
    f"{BATCH} switches at a time": _switches,
    "malformed requests and resets": _malformed,
}
