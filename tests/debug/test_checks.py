# SPDX-License-Identifier: GPL-2.0
"""What only the debug kernel can tell: that its checks are on, and what they find."""

import re
import subprocess

import pytest

from test_pending import go_on, hmp
from test_testdev import DRIVERS
from vbw.machine import Config, Disk, file_node, raw_node
from vbw.vm import OURS

SYS = "/sys/block/vda"
FAULTS = "/sys/kernel/debug"
DEVICE = "$(basename $(readlink -f /sys/block/vda/device))"
DRIVER = f"/sys/bus/virtio/drivers/{OURS}"
USE = f"""
    vbwtool write /dev/vda 0 1048576 7 && vbwtool verify /dev/vda 0 1048576 7 &&
    vbwtool set {SYS}/cache_type 'write through' && vbwtool write /dev/vda 0 65536 8 &&
    vbwtool set {SYS}/cache_type 'write back' && vbwtool fsync /dev/vda &&
    cat {SYS}/serial {SYS}/cache_type {SYS}/cache_type_status > /dev/null"""
DISK_IS_THERE = "[ -b /dev/vda ]"


def use(vm):
    """Write, read, switch both ways: all of it works, as soon as the disk is there."""
    vm.guest.until(DISK_IS_THERE, 20)
    assert set(vm.guest(USE).split()) == {"OK"}


# Only what is five seconds old counts for kmemleak, and only what several scans have not found.
SCAN = "sleep 6; for i in 1 2 3; do echo scan > /sys/kernel/debug/kmemleak; done"


def forget_leaks(vm):
    """What the kernel has left behind while it started is not of interest."""
    vm.guest(f"echo scan=off > /sys/kernel/debug/kmemleak; {SCAN}; echo clear > /sys/kernel/debug/kmemleak")


def leaks(vm):
    """What kmemleak says, which was on from the start."""
    vm.guest(SCAN)
    return vm.guest("cat /sys/kernel/debug/kmemleak")


def test_checks_are_on(env, boot, disk):
    """A kernel whose checks are off, or a driver that has none, would pass every test."""
    symbols = subprocess.run(["nm", str(env.module)], check=True, capture_output=True, text=True).stdout
    assert "__asan_" in symbols, "the driver was not compiled for KASAN"
    vm = boot(Config(disks=[disk()]))
    use(vm)
    assert "KernelAddressSanitizer initialized" in vm.guest("dmesg")
    statistics = vm.guest("cat /proc/lockdep_stats")
    assert re.search(r"^ *debug_locks: +1$", statistics, re.M), statistics
    assert "virtqueue" in vm.guest("cat /proc/lockdep"), "the ring's lock is one that lockdep knows"


def test_nothing_leaks(boot, image):
    """Used, unbound and bound, unloaded: kmemleak finds no memory that nobody points to."""
    node = raw_node(file_node(image, discard="unmap"), discard="unmap")
    vm = boot(Config(disks=[Disk(node, props={"num-queues": 2, "serial": "leak"})], memory_mb=768,
                     kernel_args="kmemleak=on"), driver=None)
    forget_leaks(vm)
    vm.load()
    for _ in range(3):
        use(vm)
        vm.guest("blkdiscard -o 0 -l 65536 /dev/vda")
        vm.guest(f"d={DEVICE}; echo $d > {DRIVER}/unbind && echo $d > {DRIVER}/bind")
        use(vm)
    vm.guest(f"rmmod {OURS}")
    assert not leaks(vm)


def test_all_at_once(boot, disk):
    """All that takes locks of the disk, at the same time: lockdep sees which are taken in which order."""
    vm = boot(Config(cpus=4, disks=[disk(**{"num-queues": 2, "serial": "all"})]))
    loops = {
        "switching": f"vbwtool set {SYS}/cache_type 'write through'; vbwtool set {SYS}/cache_type 'write back'",
        "reading": f"cat {SYS}/serial {SYS}/cache_type {SYS}/cache_type_status",
        "scheduling": f"echo mq-deadline > {SYS}/queue/scheduler; echo none > {SYS}/queue/scheduler",
        "limiting": f"echo 64 > {SYS}/queue/nr_requests; echo 128 > {SYS}/queue/max_sectors_kb; "
                    f"echo 1280 > {SYS}/queue/max_sectors_kb",
        "caching": f"echo write through > {SYS}/queue/write_cache; echo write back > {SYS}/queue/write_cache",
        "listing": "cat /proc/partitions /proc/diskstats; fdisk -l /dev/vda",
        "rescanning": "blockdev --rereadpt /dev/vda",
        # Not dd, which would make a file of that name when the disk is gone.
        "writing": "vbwtool write /dev/vda 0 524288 1; vbwtool fsync /dev/vda",
        "discarding": "blkdiscard -o 1048576 -l 1048576 /dev/vda",
    }
    vm.guest(": > /tmp/go")
    jobs = [vm.guest.start(f"while [ -e /tmp/go ]; do {loop}; done > /dev/null 2>&1; true")
            for loop in loops.values()]
    load = vm.guest.start(
        "fio --name=load --filename=/dev/vda --offset=8m --size=16m --rw=randrw --bs=4k --direct=1 "
        "--ioengine=libaio --iodepth=16 --fsync=50 --time_based --runtime=15")
    for size in (96, 128, 80, 64):
        vm.qmp("block_resize", **{"node-name": "disk0-node", "size": size << 20})
        vm.guest("sleep 2")
    output = load.wait(60)
    assert output.status == 0 and "err= 0" in output.text, output.text
    # The disk goes and comes with all of that still going on, under whatever name is free.
    vm.guest(f"""d={DEVICE}; echo $d > /tmp/device
        for i in 1 2 3; do
            echo $d > {DRIVER}/unbind && sleep 1 && echo $d > {DRIVER}/bind && sleep 1 || exit 1
        done
        rm /tmp/go""")
    for job in jobs:
        job.wait(60)
    vm.guest(f"d=$(cat /tmp/device); echo $d > {DRIVER}/unbind && echo $d > {DRIVER}/bind")
    use(vm)


def test_unbound_while_open(boot, disk):
    """Who has the disk open when it goes gets errors, and what it holds stays valid until it closes."""
    vm = boot(Config(disks=[disk()]))
    vm.guest(f"""
        exec 4< /dev/vda 5< {SYS}/cache_type_status 6< {SYS}/serial
        d={DEVICE}
        echo $d > {DRIVER}/unbind || exit 2
        [ $(dd bs=4k count=1 <&4 2> /dev/null | wc -c) = 0 ] || exit 3
        cat <&5 > /dev/null 2>&1 && exit 4
        cat <&6 > /dev/null 2>&1 && exit 5
        rmmod {OURS} 2> /dev/null && exit 6
        exec 4<&- 5<&- 6<&-
        echo $d > {DRIVER}/bind || exit 7""")
    use(vm)
    vm.guest(f"rmmod {OURS}")


def test_suspending_while_a_switch_is_pending(boot, image):
    """A writer who waits is in nobody's way when tasks are frozen, whatever becomes of suspending."""
    node = raw_node({"driver": "blkdebug", "image": file_node(image)})
    vm = boot(Config(disks=[Disk(node)]))
    hmp(vm, "break flush_to_os stop")
    writer = vm.guest.start(f"vbwtool set {SYS}/cache_type 'write through'")
    assert vm.guest(f"vbwtool wait {SYS}/cache_type_status 'pending write through' 10") == "OK"
    # With this nothing but the tasks is stopped, for five seconds.
    vm.guest("echo freezer > /sys/power/pm_test; echo mem > /sys/power/state")
    assert "suspend debug: Waiting" in vm.guest("dmesg")
    vm.check_log()
    go_on(vm)
    assert writer.wait(20).text in ("OK", "EINTR")
    assert vm.guest(f"vbwtool wait {SYS}/cache_type_status 'ok write through' 10") == "OK"


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_answer_is_lost(boot, disk, driver):
    """fail_io_timeout, which has the block layer not see one answer: that request waits, no other."""
    vm = boot(Config(disks=[disk()]), driver=driver)
    vm.guest(f"""cd {FAULTS}/fail_io_timeout
        echo 0 > verbose; echo 100 > probability; echo 1 > times; echo 1 > {SYS}/io-timeout-fail""")
    lost = vm.guest.start("vbwtool write /dev/vda 0 4096 1")
    vm.guest.until(f"[ $(cat {FAULTS}/fail_io_timeout/times) = 0 ]", 6)
    assert vm.guest("vbwtool write /dev/vda 65536 4096 2; vbwtool verify /dev/vda 65536 4096 2") == "OK\nOK"
    assert lost.running()
