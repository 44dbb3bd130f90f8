# SPDX-License-Identifier: GPL-2.0
"""One allocation after the other fails: while a device is bound and unbound, switched, reset and suspended."""

import os

import pytest

from test_checks import DEVICE, DISK_IS_THERE, DRIVER, SYS, forget_leaks, leaks, use
from test_reset import PORT
from vbw.machine import Config
from vbw.vm import OURS

FAULTS = "/sys/kernel/debug"

# Allocations that may fail: those of the slab allocator and of the page allocator, those that could
# wait included. Nothing is printed of them, and each is one that the test asks for by its number.
FAIL_NTH = f"""
    cd {FAULTS}
    echo N > failslab/ignore-gfp-wait
    echo N > fail_page_alloc/ignore-gfp-wait
    echo 0 > fail_page_alloc/min-order
    for f in failslab fail_page_alloc; do echo 0 > $f/verbose; done
    cd {DRIVER}"""

# Only those that the driver asks for, itself or by what it calls.
OF_THE_DRIVER = f"""
    start=$(cat /sys/module/{OURS}/sections/.text)
    for f in {FAULTS}/failslab {FAULTS}/fail_page_alloc; do
        printf '%s' $start > $f/require-start
        printf '0x%x' $((start + 0x40000)) > $f/require-end
    done"""

# There are some 450 when a device is bound, which takes minutes; so only every third one fails,
# unless somebody wants to know more.
EVERY = int(os.environ.get("VBW_FAIL_EVERY", "3"))


def attempts(vm, prepare, command, works, every=1):
    """Have one allocation after the other of a command fail, until it needs no more.

    Returns for each attempt whether the command has succeeded.
    """
    results = []
    while not results or results[-1] != "done":
        first = len(results) * every + 1
        assert first < 2000, "it never gets through without a failed allocation"
        answers = vm.guest(f"""exec 2> /dev/null; {prepare}
            nth={first}
            while [ $nth -lt {first + 40 * every} ]; do
                echo $nth > /proc/self/fail-nth
                {command}
                read -r left < /proc/self/fail-nth
                echo 0 > /proc/self/fail-nth
                echo $nth
                [ $left = 0 ] || {{ echo done; break; }}
                {works}
                nth=$((nth + {every}))
            done""", 200).split()
        numbers = [int(number) for number in answers[::2]]
        assert numbers == list(range(first, first + len(numbers) * every, every)), "not one after the other"
        results += answers[1::2]
    return results[:-1]


def test_bind_survives_failed_allocations(boot, disk):
    """Whatever cannot be had while a device is bound: it is not bound, and can be later."""
    # An interrupt that has got no folder in /proc misses it when it goes: the kernel's own affair.
    vm = boot(Config(disks=[disk(**{"num-queues": 2})], deadline=900,
                     tolerated="WARNING: fs/proc/generic.c:.* remove_proc_entry"))
    vm.guest(f"echo {DEVICE} > /tmp/device; cat /tmp/device > {DRIVER}/unbind")
    results = attempts(
        vm, FAIL_NTH + "\nread -r d < /tmp/device", "echo $d > bind",
        """if [ -e $d ]; then
               echo bound; echo $d > unbind || exit 1
           else
               echo refused
           fi""", EVERY)
    assert results.count("refused") > 10, results
    vm.guest(f"d=$(cat /tmp/device); [ -e {DRIVER}/$d ] || echo $d > {DRIVER}/bind")
    use(vm)


# What this is a part of has a limit of its own.
WAIT_FOR_DISK = f"until {DISK_IS_THERE}; do usleep 20000; done"
# A disk that has not come back fails what it is given, and works as soon as it is bound anew.
WORKS = f"""
    if [ "$(vbwtool write /dev/vda 0 4096 1)" = OK ]; then
        echo works
    else
        echo lost; echo $d > unbind; echo $d > bind; {WAIT_FOR_DISK}
    fi"""

# What is done, what comes of it if an allocation fails, and which ones fail. The shell's own commands do it: what the
# number counts is what this very process has the kernel allocate.
WAYS = {
    "switch": (
        f"echo 'write through' > {SYS}/cache_type",
        f"""case $(cat {SYS}/cache_type) in *through) echo switched ;; *) echo refused ;; esac
            [ "$(vbwtool set {SYS}/cache_type 'write back')" = OK ] || exit 2""",
        {"switched", "refused"}, 1),
    "reset": (
        "echo 1 > $pci/reset",
        WORKS, {"works", "lost"}, EVERY),
    "suspend": (
        "echo mem > /sys/power/state",
        WORKS, {"works", "lost"}, EVERY),
    "unbind": (
        "echo $d > unbind",
        f"""[ ! -e $d ] || exit 3
            echo gone; echo $d > bind; {WAIT_FOR_DISK}""",
        {"gone"}, EVERY),
}


@pytest.mark.parametrize("command, works, possible, every", WAYS.values(), ids=WAYS.keys())
def test_each_allocation_of_the_driver(boot, disk, command, works, possible, every):
    """It is refused or done, the disk works afterwards, and nothing stays behind."""
    vm = boot(Config(disks=[disk(**{"num-queues": 2, "bus": "root0"})], deadline=900, memory_mb=768, serial=True,
                     extra_first=PORT, kernel_args="kmemleak=on",
                     tolerated="WARNING: fs/proc/generic.c:.* remove_proc_entry"))
    # Devices are suspended one after the other, by who asks for it, and for no longer than that takes.
    vm.guest(f"""echo {DEVICE} > /tmp/device; readlink -f {SYS}/device/.. > /tmp/pci
        echo 0 > /sys/power/pm_async; echo devices > /sys/power/pm_test
        echo 0 > /sys/module/suspend/parameters/pm_test_delay""")
    forget_leaks(vm)
    prepare = FAIL_NTH + OF_THE_DRIVER + "\nread -r d < /tmp/device; read -r pci < /tmp/pci"
    results = attempts(vm, prepare, command, works, every)
    assert len(results) > 3 and set(results) <= possible, results
    vm.guest(f"d=$(cat /tmp/device); [ -e {DRIVER}/$d ] || echo $d > {DRIVER}/bind")
    use(vm)
    vm.guest(f"rmmod {OURS}")
    assert not leaks(vm)


@pytest.mark.parametrize("queues", [1, 2])
def test_io_survives_failed_allocations(boot, disk, queues):
    """No request fails because an allocation of the driver's did: it is tried again."""
    vm = boot(Config(disks=[disk(**{"num-queues": queues})]))
    vm.guest(f"""cd {FAULTS}/failslab
        start=$(cat /sys/module/{OURS}/sections/.text)
        printf '%s' $start > require-start
        printf '0x%x' $((start + 0x40000)) > require-end
        echo 0 > verbose; echo -1 > times; echo 30 > probability""")
    load = vm.guest.start(
        "fio --name=load --filename=/dev/vda --size=16m --rw=randwrite --bsrange=4k-64k --direct=1 "
        "--ioengine=libaio --iodepth=32 --fsync=50 --verify=crc32c --verify_fatal=1 --do_verify=1 "
        "--io_size=48m")
    for mode in ("write through", "write back") * 5:
        assert vm.guest(f"vbwtool set {SYS}/cache_type '{mode}'") == "OK"
    output = load.wait(120)
    assert output.status == 0 and "err= 0" in output.text, output.text
    vm.guest(f"echo 0 > {FAULTS}/failslab/probability")
