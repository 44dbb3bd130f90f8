# SPDX-License-Identifier: GPL-2.0
"""Processors that really run at the same time, below the checks of the debug kernel.

An emulated machine with a thread for each of its processors has the races of a real one. The stock kernel
patches its own code, which such a machine cannot take; the debug kernel has nothing that does. With the second debug
kernel it is KCSAN that watches.
"""

import os
import time

import pytest

from test_checks import DISK_IS_THERE
from test_reset import PORT, until
from test_unplug import GONE, devices
from vbw import kernel_log
from vbw.machine import Config, Disk, file_node, raw_node
from vbw.vm import OURS

QUEUES = 4
# make check-parallel has it run for longer.
SECONDS = float(os.environ.get("VBW_PARALLEL_SECONDS") or 60)
KCSAN = os.environ.get("VBW_DEBUG") == "kcsan"
SYS = "/sys/block/vda"
DRIVER = f"/sys/bus/virtio/drivers/{OURS}"
LOAD = ("fio --name=load --filename=/dev/vda --size=8m --rw=randwrite --bs=4k --direct=1 --ioengine=libaio "
        f"--iodepth=16 --numjobs={QUEUES} --offset_increment=8m --verify=crc32c --verify_backlog=64 --fsync=32 "
        "--verify_fatal=1 --time_based --runtime=100000 --group_reporting --output=/run/fio.out")
SWITCH = ("n=0; while [ ! -e /run/enough ] && [ -e {0} ]; do for mode in 'write through' 'write back'; do "
          "vbwtool set {0} \"$mode\" >> /run/switched; done; n=$((n + 1)); done; echo $n").format(f"{SYS}/cache_type")


@pytest.fixture
def machine(boot, image):
    """A machine that runs its processors in threads, whose disk can be reset and pulled out."""
    disk = Disk(raw_node(file_node(image)), props={"bus": "root0", "num-queues": QUEUES})
    vm = boot(Config(disks=[disk], cpus=QUEUES, memory_mb=1024, extra_first=PORT, parallel=True,
                     deadline=1200 + 4 * SECONDS))
    assert vm.guest("nproc") == str(QUEUES)
    assert vm.guest(f"ls {SYS}/mq | wc -l") == str(QUEUES)
    return vm


def start(vm):
    """Load and two that switch, all of which have begun."""
    before = vm.guest(f"rm -f /run/enough /run/switched; awk '{{ print $5 }}' {SYS}/stat")
    load, switches = vm.guest.start(LOAD), [vm.guest.start(SWITCH) for _ in range(2)]
    vm.guest.until(f"[ $(awk '{{ print $5 }}' {SYS}/stat) -gt {int(before) + 200} ] && grep -q OK /run/switched", 20)
    return load, switches


def end(vm, load, switches):
    """Without an error, if the disk was there all the time."""
    vm.guest("touch /run/enough")
    assert load.running(), load.wait().text
    load.signal("INT")
    load.wait(120)
    assert "err= 0" in vm.guest("cat /run/fio.out")
    assert sum(int(job.wait(120).text) for job in switches) > 0
    assert set(vm.guest("sort -u /run/switched").split()) == {"OK"}


def reset(vm):
    """Resets, during which the load goes on. A switch that one of them meets ends with ENODEV."""
    load, switches = start(vm)
    for _ in range(5):
        vm.guest(f"echo 1 > $(readlink -f {SYS}/device/..)/reset; usleep 200000")
    vm.guest("sed -i '/^ENODEV$/d' /run/switched")
    end(vm, load, switches)


def switch(vm):
    """Nothing but switches."""
    load, switches = start(vm)
    time.sleep(5)
    end(vm, load, switches)


def unbind(vm):
    """The driver lets the disk go under load, and takes it back."""
    load, switches = start(vm)
    vm.guest(f"d=$(basename $(readlink -f {SYS}/device)); echo $d > {DRIVER}/unbind && echo $d > {DRIVER}/bind")
    vm.guest.until(DISK_IS_THERE, 20)
    assert load.wait(120).status != 0
    vm.guest("touch /run/enough")
    for job in switches:
        job.wait(120)


def unplug(vm):
    """The disk is pulled out under load, and put in again."""
    load, switches = start(vm)
    vm.qmp("device_del", id="disk0")
    vm.guest.until(GONE, 30)
    assert load.wait(120).status != 0
    for job in switches:
        job.wait(120)
    until(lambda: "disk0" not in devices(vm), "QEMU keeps the device")
    vm.qmp("device_add", driver="virtio-blk-pci", id="disk0", bus="root0", drive="disk0-node",
           **{"num-queues": QUEUES, "set-wce": True})
    vm.guest.until(DISK_IS_THERE, 20)


def races(vm):
    """How many accesses KCSAN has watched, and how many data races it has seen that the driver has no part in."""
    watched = int(vm.guest("awk '/setup_watchpoints/ { print $2 }' /sys/kernel/debug/kcsan"))
    return watched, len(kernel_log.races_of_others([line.text for line in vm.kernel_log()]))


def test_everything_at_once(env, machine):
    """Again and again, for as long as there is time; the kernel's checks find nothing."""
    assert not KCSAN or b"__tsan_write" in env.module.read_bytes()
    began, rounds = time.monotonic(), 0
    while not rounds or time.monotonic() < began + SECONDS:
        for step in (switch, reset, unbind, unplug):
            step(machine)
        rounds += 1
    assert machine.guest("vbwtool write /dev/vda 0 65536 1 && vbwtool verify /dev/vda 0 65536 1") == "OK\nOK"
    print(f"{rounds} rounds")
    if KCSAN:
        watched, others = races(machine)
        assert watched
        print(f"{watched} accesses watched, {others} data races without the driver")
