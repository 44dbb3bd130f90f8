# SPDX-License-Identifier: GPL-2.0
"""What a cut of the power leaves is checked: the records, and the file systems and databases on it."""

import json
import mmap
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vbw.machine import Config, Disk, file_node, raw_node
from vbw.vm import STOCK, VM

from . import guestfiles, records
from .bench import Bench
from .records import BLOCK

MOUNT = "/tmp/m"


def _look(bench: Bench, path: Path, acked: dict[int, int]) -> None:
    """Look for every acknowledged record where it belongs, in an image of the raw disk."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as image:
        for block, sequence in acked.items():
            content = image[block * BLOCK:(block + 1) * BLOCK]
            if not records.fulfils(content, block, sequence):
                bench.judge.lose_in_cut(f"block {block} has {records.oldest(content, block)}, "
                                        f"acknowledged was {sequence}")
    bench.note("records in cuts", len(acked))


def of_raw_disk(bench: Bench, pause: float = 0.1) -> Callable[[], None]:
    """Cut, look, and pause for at most so many seconds."""
    path = bench.folder / "cut"

    def step() -> None:
        _look(bench, path, bench.cut(path))
        path.unlink()
        time.sleep(bench.random.random() * pause)
    return step


def of_image(bench: Bench, node: Callable[[dict[str, Any]], dict[str, Any]],
             objects: list[str], check: list[str] | None) -> Callable[[], None]:
    """Cut, have qemu-img check the format, and look at what it reads."""
    path, raw = bench.folder / "cut", bench.folder / "cut.raw"
    tool = bench.env.qemu / "qemu-img"

    def step() -> None:
        acked = bench.cut(path)
        if check:
            checked = subprocess.run([tool, "check", *check, path], capture_output=True, text=True, check=False)
            if "-r" in check:
                checked = subprocess.run([tool, "check", path], capture_output=True, text=True, check=False)
            # 3: clusters that are allocated and not used, which is what a cut may leave.
            if checked.returncode not in (0, 3):
                bench.judge.lose_in_cut(f"qemu-img check: {checked.returncode}: {checked.stdout[-500:]}")
        source = "json:" + json.dumps(node({"driver": "file", "filename": str(path)}))
        read = subprocess.run([tool, "convert", *objects, "-O", "raw", source, raw],
                              capture_output=True, text=True, check=False)
        if read.returncode:
            bench.judge.lose_in_cut(f"qemu-img convert: {read.stderr[-500:]}")
        else:
            _look(bench, raw, acked)
        time.sleep(bench.random.random() * 0.1)
    return step


@dataclass
class FileSystem:
    """How one is made, on the host, and mounted and checked, in a guest."""

    name: str
    make: list[str]
    mib: int
    check: str
    binaries: list[str]
    modules: list[str]
    # Shell code that makes the device which is mounted of the disk, and that takes it down.
    device: str = "/dev/vda"
    set_up: str = "true"
    take_down: str = "true"


EXT4 = FileSystem("ext4", ["mkfs.ext4", "-q", "-F", "-b", "4096"], 96, "/usr/sbin/e2fsck -fn /dev/vda",
                  ["/usr/sbin/e2fsck"], ["ext4"])
XFS = FileSystem("xfs", ["mkfs.xfs", "-q", "-f"], 320, "/usr/sbin/xfs_repair -n /dev/vda",
                 ["/usr/sbin/xfs_repair"], ["xfs"])
BTRFS = FileSystem("btrfs", ["mkfs.btrfs", "-q", "-f"], 256, "/usr/bin/btrfs check /dev/vda", ["/usr/bin/btrfs"],
                   ["btrfs"])

_CRYPT = "/dev/mapper/crypt"
_DM = "/usr/sbin/dmsetup --noudevsync"
DM_CRYPT = FileSystem(
    "ext4", [], 96, f"/usr/sbin/e2fsck -fn {_CRYPT}", ["/usr/sbin/e2fsck", "/usr/sbin/mkfs.ext4", "/usr/sbin/dmsetup"],
    ["ext4", "dm-crypt", "xts", "aes", "aes_generic"], _CRYPT,
    f"{_DM} create crypt --table \"0 $(cat /sys/block/vda/size) crypt aes-xts-plain64 {'5a' * 32}{'17' * 32} 0 "
    f"/dev/vda 0\" && {_DM} mknodes", f"{_DM} remove crypt")


@dataclass
class Cuts:
    """Cuts that are kept until a guest looks at them, which is when the load has ended."""

    bench: Bench
    system: FileSystem
    most: int
    # What the guest runs below the mount point, beside looking for records: prints "row BLOCK NUMBER".
    query: str = ""
    binaries: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    memory_mb: int = 512
    kept: list[tuple[Path, dict[int, int]]] = field(default_factory=list)

    def take(self) -> None:
        """Cut, at some moment, unless there are enough."""
        time.sleep(self.bench.random.random() * 2 * self.bench.seconds / self.most)
        if len(self.kept) < self.most:
            path = self.bench.folder / f"cut{len(self.kept)}"
            self.kept.append((path, self.bench.cut(path)))

    def check(self) -> None:
        """Have a guest mount each, look for what was acknowledged, and check the file system."""
        bench, system = self.bench, self.system
        image = bench.folder / "looked-at"
        image.touch()
        initrd = guestfiles.build(bench.env, system.binaries + self.binaries, system.modules, self.files)
        vm = VM(bench.env, Config(disks=[Disk(raw_node(file_node(image)))], stock_qemu=True, initrd=initrd,
                                  memory_mb=self.memory_mb, deadline=120 + 30 * self.most), bench.folder / "checker")
        image.write_bytes(bytes(BLOCK))
        for number, (path, acked) in enumerate(self.kept):
            # One disk after the other under the same name, so that QEMU need not start again.
            with image.open("r+b") as file:
                file.truncate(0)
            _copy(path, image)
            if not number:
                bench.vms.append(vm)
                vm.start()
                vm.load(STOCK)
                vm.guest(guestfiles.load_modules(bench.env, system.modules) + f"; mkdir {MOUNT}")
            self._check_one(vm, acked, f"cut {number}")
            path.unlink()
        bench.at_least("records in cuts", bench.notes["records in cuts"], 1)

    def _check_one(self, vm: VM, acked: dict[int, int], name: str) -> None:
        bench, system = self.bench, self.system
        looked = vm.guest.run(
            f"blockdev --flushbufs /dev/vda; echo 3 > /proc/sys/vm/drop_caches; "
            f"{system.set_up}; mount -t {system.name} {system.device} {MOUNT} || "
            f"{{ echo cannot be mounted; exit 3; }}; "
            f"for f in {MOUNT}/f*; do [ ! -e $f ] || provetool find $f || echo unreadable $f; done; "
            f"{self.query or 'true'}; umount {MOUNT}", timeout=120, check=False)
        if looked.status:
            bench.judge.lose_in_cut(f"{name}: {looked.text[-500:]}")
            return
        found: dict[int, int] = {}
        for line in looked.lines:
            match = re.fullmatch(r"(?:row )?(\d+) (\d+)", line)
            if match:
                found[int(match[1])] = max(int(match[2]), found.get(int(match[1]), 0))
            elif not line.startswith("torn"):
                bench.judge.lose_in_cut(f"{name}: {line}")
        missing = {block: sequence for block, sequence in acked.items() if found.get(block, 0) < sequence}
        if missing:
            some = ", ".join(f"{block} has {found.get(block, 0)}, acknowledged was {sequence}"
                             for block, sequence in list(missing.items())[:4])
            bench.judge.lose_in_cut(f"{name}: {len(missing)} of {len(acked)} records are not there: {some}")
        checked = vm.guest.run(f"{system.check}; status=$?; {system.take_down}; exit $status", timeout=120, check=False)
        if checked.status:
            bench.judge.lose_in_cut(f"{name}: {system.check}: status {checked.status}: {checked.text[-800:]}")
        bench.note("records in cuts", len(acked))


def _copy(source: Path, target: Path) -> None:
    """Into the same file, as somebody has it open."""
    with source.open("rb") as src, target.open("r+b") as dst:
        size = source.stat().st_size
        dst.truncate(size)
        while chunk := src.read(1 << 20):
            if chunk.strip(b"\0"):
                dst.write(chunk)
            else:
                dst.seek(len(chunk), 1)
