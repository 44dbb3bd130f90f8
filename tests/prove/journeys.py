# SPDX-License-Identifier: GPL-2.0
"""Trials of what becomes of a guest: it moves, its disk is reset."""

import time

from test_reset import suspend

from .bench import Bench, until
from .raw import CACHE_TYPE, RULES, SYSFS, everybody, set_mode, writer
from .trials import trial


@trial("migration")
def migration(bench: Bench) -> None:
    """The guest moves to another QEMU, by way of a file, and again; every rule, the guest switches all the time."""
    vm = bench.boot(bench.serve())
    job = bench.start_load(vm, CACHE_TYPE, "toggle=20000", *everybody(), seconds=bench.seconds * 2)
    for _ in range(2):
        time.sleep(bench.seconds / 3)
        vm = bench.move(vm)
        job.guest = vm.guest
    bench.end_load(job, bench.seconds * 4 + 120)
    bench.at_least("switches", bench.notes["switches"], 10)


@trial("suspend")
def suspended(bench: Bench) -> None:
    """The guest is suspended to memory and woken again and again, in write through at first."""
    vm = bench.boot(bench.serve(), serial=True)
    for mode, words in (("write through", ["steady=through", writer("plain", 12)]), ("write back", [])):
        set_mode(vm, mode)
        bench.load(vm, *words, writer("fsync"), writer("aio", 1, depth=4),
                   meanwhile=lambda: (suspend(vm), bench.note("suspensions", 1)), steps=1)
        bench.expect("the mode", vm.guest(f"cat {SYSFS}/cache_type"), mode)
    bench.at_least("suspensions", bench.notes["suspensions"], 2)


@trial("reset")
def reset(bench: Bench) -> None:
    """The disk's function is reset again and again, every rule, the guest switches all the time."""
    # A function that its port can reset.
    vm = bench.boot(bench.serve(), props={"bus": "root0"},
                    extra_first=["-device", "pcie-root-port,id=root0,chassis=1"])

    def step() -> None:
        vm.guest(f"echo 1 > $(readlink -f {SYSFS}/device/..)/reset")
        bench.note("resets", 1)
        time.sleep(bench.random.random() * 0.2)
    # Requests that the reset takes with it may fail; nobody acknowledges those.
    bench.load(vm, writer("plain", 12), *everybody()[:len(RULES)], meanwhile=step, may_fail=True)
    bench.at_least("resets", bench.notes["resets"], 5)


def _mirror(name: str, by_file: bool) -> None:
    @trial(name, what="A job mirrors the disk to another storage, and the guest goes on there; it switches meanwhile")
    def mirror(bench: Bench) -> None:
        vm = bench.boot(bench.mount() if by_file else bench.serve())
        vm.qmp("blockdev-add", **{"node-name": "copy", "driver": "raw", "file": bench.second()})
        job = bench.start_load(vm, CACHE_TYPE, "toggle=10000", *everybody(), seconds=300)
        time.sleep(bench.seconds / 2)
        vm.qmp("blockdev-mirror", **{"job-id": "mirror", "device": "disk0-node", "target": "copy", "sync": "full"})
        until(lambda: any(each["ready"] for each in vm.qmp("query-block-jobs")), "the mirror is ready", 120)
        vm.qmp("block-job-complete", device="mirror")
        until(lambda: not vm.qmp("query-block-jobs"), "the mirror's end", 120)
        bench.note("writes before", bench.storage.counts["write"])
        before = bench.judge.acknowledged
        time.sleep(bench.seconds)
        bench.stop_load(vm)
        bench.end_load(job)
        bench.note("after the pivot", bench.judge.acknowledged - before)
        bench.at_least("acknowledgements after the pivot", bench.notes["after the pivot"], 50)
        bench.at_least("switches", bench.notes["switches"], 10)
        bench.call(bench.judge.check_second)


_mirror("mirror", False)
_mirror("mirror-file", True)


@trial("backup")
def backup(bench: Bench) -> None:
    """A job copies what the guest is about to overwrite, again and again; the guest switches all the time."""
    vm = bench.boot(bench.serve())
    vm.qmp("blockdev-add", **{"node-name": "copy", "driver": "raw", "file": bench.second(judged=False)})

    def step() -> None:
        vm.qmp("blockdev-backup", **{"job-id": "backup", "device": "disk0-node", "target": "copy", "sync": "full"})
        until(lambda: not vm.qmp("query-block-jobs"), "the backup's end", 120)
        bench.note("backups", 1)
    bench.load(vm, CACHE_TYPE, "toggle=10000", *everybody(), meanwhile=step, steps=2)
    bench.at_least("backups", bench.notes["backups"], 2)
