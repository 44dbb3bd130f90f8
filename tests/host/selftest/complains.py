# SPDX-License-Identifier: GPL-2.0
"""Run by test_harness.py only: tests that have to fail, each for its own reason."""

from vbw import kernel_log
from vbw.machine import Config

LINES = [
    "WARNING: CPU: 0 PID: 1 at x.c:1 f+0x1/0x2",
    "BUG: kernel NULL pointer dereference, address: 0000000000000000",
    "Oops: general protection fault, probably for non-canonical address 0x1",
    "BUG: KASAN: slab-use-after-free in f+0x1/0x2",
    "refcount_t: underflow; use-after-free.",
    "INFO: task rmmod:1 blocked for more than 120 seconds.",
    "sysfs: cannot create duplicate filename '/devices/virtual/block/vda'",
    "WARNING: possible recursive locking detected",
    "WARNING: possible circular locking dependency detected",
    "WARNING: inconsistent lock state",
    "WARNING: SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected",
    "WARNING: suspicious RCU usage",
    "WARNING: held lock freed!",
    "[ BUG: Invalid wait context ]",
    "INFO: trying to register non-static key.",
    "INFO: lockdep is turned off.",
    "DEBUG_LOCKS_WARN_ON(1)",
    "BUG: sleeping function called from invalid context at x.c:1",
    "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 31s!",
    "BUG kmalloc-64 (Tainted: G           O       ): Redzone overwritten",
    "UBSAN: array-index-out-of-bounds in x.c:1:1",
    "ODEBUG: free active (active state 0) object: 0000000000000000 object type: work_struct",
    "    not ok 1 a_test_of_kunit",
    "kmemleak: 2 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
]


def test_complaints(boot):
    """Each of the lines is found."""
    vm = boot(Config(), driver=None)
    for number, line in enumerate(LINES):
        vm.guest(f"echo '<6>{number} {line}' > /dev/kmsg")
    vm.wait_for_log("mark")
    found = [str(line) for line in kernel_log.bad_lines(vm.kernel_log())]
    assert len(found) == len(LINES), "the list of bad words is not whole"


def test_panic(boot):
    """The guest panics; the console tells."""
    vm = boot(Config(), driver=None)
    vm.guest("echo c > /proc/sysrq-trigger")


def test_guest_hangs(boot):
    """A command that never ends has a deadline."""
    vm = boot(Config(), driver=None)
    vm.guest("sleep 1000", timeout=2)


def test_command_fails(boot):
    """A command's failure is the test's."""
    vm = boot(Config(), driver=None)
    vm.guest("exit 7")


def test_qemu_does_not_start(boot):
    boot(Config(extra=["-blockdev", "driver=no-such-driver,node-name=node"]))
