# SPDX-License-Identifier: GPL-2.0
"""Trials of what becomes of a guest: it moves, its disk is reset, its disk is another process."""

import dataclasses
import json
import subprocess
import time

from vbw.machine import Config
from vbw.vm import OURS, VM, wait_for_disks

from .bench import BadSetUp, Bench
from .raw import CACHE_TYPE, RULES, SYSFS, everybody, writer
from .trials import trial


def until(condition, what: str, seconds: float = 60) -> None:
    """Wait for a condition of the host."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise BadSetUp(f"waited in vain: {what}")
        time.sleep(0.02)


def _move(bench: Bench, vm: VM) -> VM:
    """Send the guest to a file, and have another QEMU take it from there, while it writes."""
    state = bench.folder / "state"
    vm.qmp("migrate", uri=f"file:{state}")
    until(lambda: vm.qmp("query-migrate").get("status") in ("completed", "failed"), "the migration's end", 120)
    bench.expect("the migration", vm.qmp("query-migrate")["status"], "completed")
    vm.kill()
    config = dataclasses.replace(vm.config, extra=[*vm.config.extra, "-incoming", "defer"])
    there = VM(bench.env, config, bench.folder / f"vm{len(bench.vms)}")
    bench.vms.append(there)
    there.launch()
    there.qmp("migrate-incoming", uri=f"file:{state}")
    until(lambda: there.qmp("query-migrate").get("status") in ("completed", "failed"), "its arrival", 120)
    bench.expect("the migration", there.qmp("query-migrate")["status"], "completed")
    state.unlink()
    there.guest.resync()
    there.config = dataclasses.replace(there.config, extra=vm.config.extra)
    bench.note("journeys", 1)
    return there


@trial("migration")
def migration(bench: Bench) -> None:
    """By way of a file to another QEMU and again, every rule, the guest switches all the time."""
    vm = bench.boot(bench.serve())
    job = bench.start_load(vm, CACHE_TYPE, "toggle=20000", *everybody(), seconds=bench.seconds * 2)
    for _ in range(2):
        time.sleep(bench.seconds / 3)
        vm = _move(bench, vm)
        job.guest = vm.guest
    bench.end_load(job, bench.seconds * 4 + 120)
    bench.at_least("switches", bench.notes["switches"], 10)


@trial("reset")
def reset(bench: Bench) -> None:
    """The disk's function is reset again and again, every rule, the guest switches all the time."""
    vm = bench.boot(bench.serve())

    def step() -> None:
        vm.guest(f"echo 1 > $(readlink -f {SYSFS}/device/..)/reset")
        bench.note("resets", 1)
        time.sleep(bench.random.random() * 0.2)
    # Requests that the reset takes with it may fail; nobody acknowledges those.
    bench.load(vm, writer("plain", 12), *everybody()[:len(RULES)], meanwhile=step, may_fail=True)
    bench.at_least("resets", bench.notes["resets"], 5)


@trial("vhost-user")
def vhost_user(bench: Bench) -> None:
    """The disk is an export of the storage daemon, every rule, the guest switches all the time."""
    node = bench.serve()
    path = bench.socket("export")
    export = {"type": "vhost-user-blk", "id": "export", "node-name": "node", "writable": True,
              "addr": {"type": "unix", "path": str(path)}}
    memory = ["-object", "memory-backend-memfd,id=memory,size=512M,share=on", "-machine", "memory-backend=memory"]
    with (bench.folder / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", str(bench.env.qemu / "qemu-storage-daemon"), "--blockdev",
             json.dumps({**node, "node-name": "node"}), "--export", json.dumps(export)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        until(lambda: path.exists() or daemon.poll() is not None, "the daemon's start")
        device = {"driver": "vhost-user-blk-pci", "id": "disk0", "chardev": "export"}
        if "set-wce" in subprocess.run([bench.env.qemu / "qemu-system-x86_64", "-device", "vhost-user-blk-pci,help"],
                                       capture_output=True, text=True, check=True).stdout:
            device["set-wce"] = True
        ack = bench.ack_port()
        config = Config(extra=[*memory, "-chardev", f"socket,id=export,path={path}", "-device", json.dumps(device),
                               *ack], deadline=300 + 10 * bench.seconds)
        vm = VM(bench.env, config, bench.folder / "vm0")
        bench.vms.append(vm)
        vm.start()
        vm.load(OURS)
        vm.guest(wait_for_disks(1))
        bench.load(vm, CACHE_TYPE, "toggle=5000", *everybody())
        bench.at_least("switches", bench.notes["switches"], 10)
        bench.finish()
    finally:
        daemon.kill()
        daemon.wait()
