# SPDX-License-Identifier: GPL-2.0
"""Trials of file systems on the disk, with cuts of the power."""

import subprocess
from pathlib import Path
from typing import Any

from vbw.vm import STOCK, VM

from . import guestfiles
from .bench import MIB, Bench
from .cuts import BTRFS, DM_CRYPT, EXT4, MOUNT, XFS, Cuts, FileSystem
from .raw import CACHE_TYPE, set_mode
from .trials import trial


def mounted(bench: Bench, system: FileSystem, binaries: list[str] = (), content: Path | None = None,
            more: list[str] = (), **config: Any) -> VM:
    """A guest with the file system mounted, on a storage that forgets. content is a folder of files for ext4."""
    image = bench.folder / "made"
    with image.open("wb") as file:
        file.truncate(system.mib * MIB)
    if system.make:
        words = ["-d", content] if content else []
        subprocess.run([*system.make, *words, image], check=True, capture_output=True)
    initrd = guestfiles.build(bench.env, [*system.binaries, *binaries], system.modules, more)
    where = "anywhere" if system.make else "in cuts"
    vm = bench.boot(bench.serve(system.mib * MIB, image, where=where), initrd=initrd, **config)
    image.unlink()
    vm.guest(guestfiles.load_modules(bench.env, system.modules) + f"; mkdir {MOUNT}")
    # What is made of the disk, is made in write through, as the layer on top might remember that.
    set_mode(vm, "write through")
    vm.guest(system.set_up)
    if not system.make:
        vm.guest(f"/usr/sbin/mkfs.ext4 -q -F {system.device}")
    vm.guest(f"mount -t {system.name} {system.device} {MOUNT} && sync")
    set_mode(vm, "write back")
    return vm


def _file(how: str, index: int, **more: object) -> str:
    """A writer of a file of its own. Where it has nothing yet, a write makes the file longer."""
    words = [f"writer={how}", f"path={MOUNT}/f{index}", f"first={index * 512}", "blocks=512"]
    return ",".join(words + [f"{key}={value}" for key, value in more.items()])


def _writers(several: bool = True) -> list[str]:
    """By every rule, some of them with several writes of one file in flight, unless that is asked not to be."""
    words = [_file("fsync", 0, buffered=1), _file("fdatasync", 1), _file("dsync", 2, buffered=1),
             _file("uring-fsync", 4, depth=2 if several else 1)]
    return words + ([_file("aio", 3, depth=4)] if several else [])


def _add(name: str, system: FileSystem, quick: bool = False, several: bool = True, foreign: str = "") -> None:
    @trial(name, quick=quick, foreign=foreign, what=f"{name}: files written by every rule; the guest switches; cuts")
    def files(bench: Bench) -> None:
        """Files written by every rule; the guest switches; cuts."""
        vm = mounted(bench, system)
        cuts = Cuts(bench, system, max(4, round(bench.seconds / 2)))
        bench.load(vm, CACHE_TYPE, "toggle=20000", *_writers(several), meanwhile=cuts.take)
        vm.kill()
        cuts.check()
        bench.at_least("switches", bench.notes["switches"], 10)
        bench.at_least("cuts", bench.notes["cuts"], 3)


_add("ext4", EXT4, quick=True)
_add("xfs", XFS)
_add("btrfs", BTRFS, several=False)
_add("btrfs-aio", BTRFS, foreign="btrfs loses some of several writes in flight, with any disk: see btrfs-stock")


@trial("btrfs-stock", foreign="what btrfs loses by itself")
def btrfs_stock(bench: Bench) -> None:
    """The same writers on btrfs with the kernel's own driver and stock QEMU, in write back throughout."""
    vm = mounted(bench, BTRFS, driver=STOCK, stock=True)
    cuts = Cuts(bench, BTRFS, max(4, round(bench.seconds / 2)))
    bench.load(vm, *_writers(), meanwhile=cuts.take)
    vm.kill()
    cuts.check()
    bench.at_least("cuts", bench.notes["cuts"], 3)
_add("dm-crypt", DM_CRYPT)
