# SPDX-License-Identifier: GPL-2.0
"""What moves while the guest writes, beside its own switches."""

import time
from collections.abc import Callable

from vbw.vm import VM

from .bench import Bench

SYSFS = "/sys/block/vda"


def host_switches(bench: Bench, vm: VM) -> Callable[[], None]:
    """The host switches both ways, with pauses of up to 50 ms."""
    def step() -> None:
        for writeback in (False, True):
            vm.qmp("block-set-write-cache", id="disk0", writeback=writeback)
            bench.note("host switches", 1)
            time.sleep(bench.random.random() * 0.05)
    return step


def limits(bench: Bench, vm: VM) -> Callable[[], None]:
    """The longest request and the number of requests change."""
    def step() -> None:
        sectors, requests = bench.random.choice((64, 256, 1280)), bench.random.choice((4, 16, 64))
        vm.guest(f"echo {sectors} > {SYSFS}/queue/max_sectors_kb; echo {requests} > {SYSFS}/queue/nr_requests")
        bench.note("limits", 1)
    return step


def capacity(bench: Bench, vm: VM, mib: int) -> Callable[[], None]:
    """The disk's size changes; where the records are it stays."""
    def step() -> None:
        size = (mib - bench.random.randrange(8)) << 20
        vm.qmp("block_resize", **{"node-name": "disk0-node"}, size=size)
        bench.note("sizes", 1)
        time.sleep(0.02)
    return step
