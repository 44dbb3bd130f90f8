# SPDX-License-Identifier: GPL-2.0
"""Trials of what is on top of the disk: file systems and databases, with cuts of the power."""

import subprocess

from vbw.vm import VM

from . import guestfiles
from .bench import MIB, Bench
from .cuts import BTRFS, DM_CRYPT, EXT4, MOUNT, XFS, Cuts, FileSystem
from .raw import CACHE_TYPE, set_mode
from .trials import trial


def _mounted(bench: Bench, system: FileSystem, binaries: list[str] = ()) -> VM:
    """A guest with the file system mounted, on a storage that forgets."""
    image = bench.folder / "made"
    with image.open("wb") as file:
        file.truncate(system.mib * MIB)
    if system.make:
        subprocess.run([*system.make, image], check=True, capture_output=True)
    initrd = guestfiles.build(bench.env, [*system.binaries, *binaries], system.modules)
    where = "anywhere" if system.make else "in cuts"
    vm = bench.boot(bench.serve(system.mib * MIB, image, where=where), initrd=initrd)
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


def _add(name: str, system: FileSystem, quick: bool = False) -> None:
    @trial(name, quick=quick, what=f"{name}: files written by every rule; the guest switches; cuts")
    def files(bench: Bench) -> None:
        """Files written by every rule; the guest switches; cuts."""
        vm = _mounted(bench, system)
        cuts = Cuts(bench, system, max(4, round(bench.seconds / 2)))
        bench.load(vm, CACHE_TYPE, "toggle=20000", _file("fsync", 0, buffered=1), _file("fdatasync", 1),
                   _file("dsync", 2, buffered=1), _file("aio", 3, depth=4), _file("uring-fsync", 4, depth=2),
                   meanwhile=cuts.take)
        vm.kill()
        cuts.check()
        bench.at_least("switches", bench.notes["switches"], 10)
        bench.at_least("cuts", bench.notes["cuts"], 3)


_add("ext4", EXT4, quick=True)
_add("xfs", XFS)
_add("btrfs", BTRFS)
_add("dm-crypt", DM_CRYPT)


SQLITE = "/usr/bin/sqlite3"
ROWS = 1 << 30


def _sqlite(mode: str) -> None:
    @trial(f"sqlite-{mode}", what=f"SQLite ({mode}) on ext4, a transaction for each row; the guest switches; cuts")
    def rows(bench: Bench) -> None:
        """SQLite on ext4, a transaction for each row; the guest switches; cuts."""
        system = EXT4
        vm = _mounted(bench, system, [SQLITE])
        query = (f"{SQLITE} {MOUNT}/db 'PRAGMA integrity_check;' | grep -vx ok; "
                 f"echo row {ROWS} $(({1 << 40} + $({SQLITE} {MOUNT}/db 'SELECT coalesce(max(id), 0) FROM t;')))")
        cuts = Cuts(bench, system, max(4, round(bench.seconds / 2)), query, [SQLITE])
        vm.guest(f"{SQLITE} {MOUNT}/db 'PRAGMA journal_mode={mode}; CREATE TABLE t(id INTEGER PRIMARY KEY, data);'"
                 f"; sync")
        inserts = "INSERT INTO t(data) VALUES (randomblob(700)); SELECT last_insert_rowid();"
        relay = vm.guest.start(
            f"{{ echo 'PRAGMA synchronous=FULL;'; while [ ! -e /tmp/stop ]; do echo '{inserts}'; done; }} | "
            f"{SQLITE} -interactive {MOUNT}/db | provetool relay ack={bench.port(vm)} run=1 block={ROWS}")
        switcher = vm.guest.start(
            "n=0; while [ ! -e /tmp/stop ]; do for mode in 'write through' 'write back'; do "
            "vbwtool set /sys/block/vda/cache_type \"$mode\"; n=$((n + 1)); usleep 20000; done; done; echo $n")
        for _ in range(cuts.most):
            cuts.take()
        vm.guest("touch /tmp/stop")
        bench.end_load(relay)
        bench.note("switches", int(switcher.wait().lines[-1]))
        vm.kill()
        cuts.check()
        bench.at_least("switches", bench.notes["switches"], 10)


for _mode in ("wal", "delete"):
    _sqlite(_mode)
