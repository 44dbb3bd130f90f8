# SPDX-License-Identifier: GPL-2.0
"""Trials of what a host does to a disk or to its machine while the guest writes."""

import dataclasses
import time
from typing import Any

from vbw.vm import VM

from .bench import Bench, until
from .raw import CACHE_TYPE, RULES, SYSFS, everybody
from .trials import trial

PORT = ["-device", "pcie-root-port,id=root0,chassis=1"]


def _job_ends(vm: VM) -> None:
    until(lambda: not vm.qmp("query-block-jobs"), "the job's end", 120)


def _job_is_ready(vm: VM) -> None:
    until(lambda: any(each["ready"] for each in vm.qmp("query-block-jobs")), "the job is ready", 120)


@trial("unplug")
def unplug(bench: Bench) -> None:
    """The disk is pulled out and put in again, while every rule writes and the guest switches."""
    props: dict[str, Any] = {"bus": "root0"}
    vm = bench.boot(bench.serve(), props=props, extra_first=PORT)
    device = {"driver": "virtio-blk-pci", "id": "disk0", "drive": "disk0-node", "disable-legacy": "on", **props}
    if vm.qmp("qom-list", path="/machine/peripheral/disk0/virtio-backend") and any(
            each["name"] == "set-wce" for each in vm.qmp("qom-list", path="/machine/peripheral/disk0/virtio-backend")):
        device["set-wce"] = True
    for _ in range(max(2, round(bench.seconds / 5))):
        # Writes that the removal takes with it fail, and so does the switch; nobody acknowledges those.
        job = bench.start_load(vm, CACHE_TYPE, "toggle=10000", *everybody()[:len(RULES)])
        time.sleep(1 + bench.random.random())
        vm.qmp("device_del", id="disk0")
        until(lambda: not any(each["name"] == "disk0" for each in vm.qmp("qom-list", path="/machine/peripheral")),
              "QEMU lets the disk go")
        bench.stop_load(vm)
        bench.end_load(job, may_fail=True)
        vm.qmp("device_add", **device)
        vm.guest.until("[ -b /dev/vda ]", 30)
        bench.note("times unplugged", 1)
    bench.load(vm, CACHE_TYPE, "toggle=10000", *everybody(), may_fail=True)
    bench.at_least("times unplugged", bench.notes["times unplugged"], 2)


@trial("snapshot")
def snapshot(bench: Bench) -> None:
    """An overlay is put on the disk and committed again, with a pivot, again and again; the guest switches."""
    vm = bench.boot(bench.serve(where="anywhere"))
    target = bench.second()

    def step() -> None:
        number = bench.notes["snapshots"]
        vm.qmp("blockdev-add", **{"node-name": f"file{number}", **target})
        job = f"create{number}"
        vm.qmp("blockdev-create", **{"job-id": job}, options={
            "driver": "qcow2", "file": f"file{number}", "size": bench.storage.size})
        until(lambda: vm.qmp("query-jobs")[0]["status"] == "concluded", "the overlay is there", 60)
        bench.expect("the overlay", vm.qmp("query-jobs")[0].get("error"), None)
        vm.qmp("job-dismiss", id=job)
        vm.qmp("blockdev-add", **{"node-name": f"overlay{number}", "driver": "qcow2", "file": f"file{number}",
                                  "backing": None})
        vm.qmp("blockdev-snapshot", node="disk0-node", overlay=f"overlay{number}")
        time.sleep(0.3 + bench.random.random() * bench.seconds / 4)
        vm.qmp("block-commit", **{"job-id": "commit", "device": f"overlay{number}"})
        _job_is_ready(vm)
        vm.qmp("block-job-complete", device="commit")
        _job_ends(vm)
        vm.qmp("blockdev-del", **{"node-name": f"overlay{number}"})
        vm.qmp("blockdev-del", **{"node-name": f"file{number}"})
        bench.note("snapshots", 1)
    bench.load(vm, CACHE_TYPE, "toggle=10000", *everybody()[:-3], meanwhile=step, steps=2)
    bench.at_least("snapshots", bench.notes["snapshots"], 2)
    bench.at_least("switches", bench.notes["switches"], 10)


@trial("live-migration")
def live_migration(bench: Bench) -> None:
    """The guest moves with its disk, which a job mirrors over NBD to the other QEMU's; the guest switches."""
    vm = bench.boot(bench.serve())
    disk = vm.config.disks[0]
    there_node = {"driver": "raw", "file": bench.second()}
    config = dataclasses.replace(
        vm.config, disks=[dataclasses.replace(disk, node=there_node)], extra=[*vm.config.extra, "-incoming", "defer"])
    there = VM(bench.env, config, bench.folder / "vm1")
    bench.vms.append(there)
    there.launch()
    path = str(bench.socket("there"))
    there.qmp("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    there.qmp("block-export-add", **{"id": "export", "type": "nbd", "node-name": "disk0-node",
                                     "writable": True})

    job = bench.start_load(vm, CACHE_TYPE, "toggle=20000", *everybody(), seconds=600)
    vm.qmp("blockdev-add", **{"node-name": "there", "driver": "nbd", "export": "disk0-node",
                              "server": {"type": "unix", "path": path}})
    vm.qmp("blockdev-mirror", **{"job-id": "mirror", "device": "disk0-node", "target": "there", "sync": "full",
                                 "copy-mode": "write-blocking"})
    _job_is_ready(vm)
    for each in (vm, there):
        each.qmp("migrate-set-capabilities", capabilities=[
            {"capability": "events", "state": True}, {"capability": "pause-before-switchover", "state": True}])
    there.qmp("migrate-incoming", uri=f"unix:{bench.socket('state')}")
    vm.qmp("migrate", uri=f"unix:{bench.socket('state')}")
    until(lambda: vm.qmp("query-migrate")["status"] in ("pre-switchover", "failed"), "the switchover", 300)
    bench.expect("the migration", vm.qmp("query-migrate")["status"], "pre-switchover")
    vm.qmp("block-job-cancel", device="mirror")
    _job_ends(vm)
    vm.qmp("migrate-continue", state="pre-switchover")
    until(lambda: vm.qmp("query-migrate")["status"] in ("completed", "failed"), "the migration's end", 120)
    bench.expect("the migration", vm.qmp("query-migrate")["status"], "completed")
    until(lambda: there.qmp("query-migrate").get("status") in ("completed", "failed"), "its arrival", 120)
    bench.expect("the migration", there.qmp("query-migrate")["status"], "completed")
    vm.kill()
    there.qmp("nbd-server-stop")
    there.guest.resync()
    there.config = dataclasses.replace(there.config, extra=vm.config.extra)
    job.guest = there.guest
    before = bench.judge.acknowledged
    time.sleep(bench.seconds)
    bench.stop_load(there)
    bench.end_load(job, bench.seconds * 4 + 120)
    bench.note("after the move", bench.judge.acknowledged - before)
    bench.at_least("acknowledgements after the move", bench.notes["after the move"], 50)
    bench.at_least("switches", bench.notes["switches"], 10)
    bench.call(bench.judge.check_second)


@trial("killed")
def killed(bench: Bench) -> None:
    """QEMU is killed while every rule writes and the guest switches, and started again on the same disk."""
    node = bench.serve()
    # What the dead guest had acknowledged is known here, and not how many it wanted to.
    bench.sent_is_known = False
    for _ in range(max(2, round(bench.seconds / 5))):
        vm = bench.boot(node)
        bench.start_load(vm, CACHE_TYPE, "toggle=10000", *everybody(), seconds=600)
        before = bench.judge.acknowledged
        until(lambda: bench.judge.acknowledged > before + 100, "the guest writes")
        time.sleep(bench.random.random())
        vm.kill()
        bench.vms.remove(vm)
        # The storage is a host of its own: what was volatile there still is, and may as well be lost.
        bench.call(bench.judge.check_all)
        bench.note("times killed", 1)
    bench.at_least("times killed", bench.notes["times killed"], 2)


@trial("iocost")
def iocost(bench: Bench) -> None:
    """Writers in two cgroups by iocost, which is turned on and off; the guest switches."""
    vm = bench.boot(bench.serve())
    vm.guest("mkdir /tmp/cg && mount -t cgroup2 none /tmp/cg && echo +io > /tmp/cg/cgroup.subtree_control && "
             "mkdir /tmp/cg/slow && echo default 10 > /tmp/cg/slow/io.weight")
    number = vm.guest(f"cat {SYSFS}/dev")

    def step() -> None:
        enable = bench.notes["times by iocost"] % 2 == 0
        # A model that says of this disk what a slow one can do, so that requests are held back.
        vm.guest(f"echo '{number} ctrl=user model=linear rbps=2000000 rseqiops=200 rrandiops=200 wbps=2000000 "
                 f"wseqiops=200 wrandiops=200' > /tmp/cg/io.cost.model; "
                 f"echo '{number} enable={int(enable)} ctrl=user rpct=0 wpct=0 min=100 max=100' > /tmp/cg/io.cost.qos")
        found = vm.guest("cat /tmp/cg/io.cost.qos")
        bench.expect("iocost", f"enable={int(enable)}" in found, True)
        bench.note("times by iocost", 1)
        time.sleep(0.5)
    step()
    bench.load(vm, CACHE_TYPE, "toggle=30000", *everybody()[:len(RULES)], meanwhile=step, steps=4,
               prefix="echo 0 > /tmp/cg/slow/cgroup.procs; exec ")
    bench.at_least("switches", bench.notes["switches"], 10)
