# SPDX-License-Identifier: GPL-2.0
"""Trials on the raw disk, on a file with a page cache that can be lost."""

import time

from vbw.vm import OURS, STOCK

from . import movers
from .bench import Bench
from .raw import CACHE_TYPE, RULES, everybody, set_mode, writer
from .trials import trial

WAYS = {"threads": {"aio": "threads"}, "io_uring": {"aio": "io_uring"},
        "threads-direct": {"aio": "threads", "direct": True},
        "io_uring-direct": {"aio": "io_uring", "direct": True}, "native": {"aio": "native"}}


@trial("no-flush", control=True, quick=True)
def no_flush(bench: Bench) -> None:
    """Our pair with cache.no-flush=on."""
    node = bench.mount()
    node["cache"]["no-flush"] = True
    vm = bench.boot(node, format_node=lambda child: {"driver": "raw", "file": child, "cache": {"no-flush": True}})
    bench.load(vm, *everybody()[:len(RULES)])


def _switches(name: str, way: dict, quick: bool) -> None:
    @trial(f"file-{name}", quick=quick)
    def switches(bench: Bench) -> None:
        """Every rule at once on a file, the guest switches as fast as it can."""
        vm = bench.boot(bench.mount(**way))
        bench.load(vm, CACHE_TYPE, "toggle=2000", *everybody())
        bench.at_least("switches", bench.notes["switches"], 20)
        bench.note("O_DSYNC opens", bench.files.images["disk"].synchronous_opens)


for _name, _way in WAYS.items():
    _switches(_name, _way, _name in ("threads", "native"))


def _host_device(name: str, way: dict) -> None:
    @trial(f"host-device-{name}")
    def host_device(bench: Bench) -> None:
        """Every rule at once on a block device of the host, which takes root; the guest switches as fast as it can."""
        with bench.device(bench.mount(**way)) as node:
            vm = bench.boot(node)
        bench.load(vm, CACHE_TYPE, "toggle=2000", *everybody())
        bench.at_least("switches", bench.notes["switches"], 20)


for _name in ("threads", "native"):
    _host_device(_name, WAYS[_name])


@trial("sizes")
def sizes(bench: Bench) -> None:
    """The size of the disk changes again and again, every rule, the guest switches all the time."""
    vm = bench.boot(bench.mount())
    bench.load(vm, CACHE_TYPE, "toggle=20000", *everybody(), meanwhile=movers.capacity(bench, vm, 64), steps=20)
    bench.at_least("sizes", bench.notes["sizes"], 20)


@trial("L7", quick=True)
def l7(bench: Bench) -> None:
    """Our driver on stock QEMU, a file, threads, one writer by fsync; the guest switches."""
    vm = bench.boot(bench.mount(), OURS, stock=True)
    bench.load(vm, CACHE_TYPE, "toggle=30000", writer("fsync"))
    bench.at_least("switches", bench.notes["switches"], 20)


def defect(bench: Bench, way: dict, stock: bool = False) -> None:
    """A part of the file cannot be made durable: every failed write has to fail, in write through."""
    vm = bench.boot(bench.mount(**way), stock=stock)
    set_mode(vm, "write through")
    vm.config.tolerated = r"I/O error, dev vda"
    job = bench.start_load(vm, writer("aio", 0, depth=4), writer("aio", 1, blocks=8192, depth=4))
    time.sleep(bench.seconds / 3)
    bench.storage.defect = (32 << 20, (64 << 20) - 1)
    bench.end_load(job, may_fail=True)
    bench.at_least("failed writes", bench.notes["failed"], 20)


def _defect(name: str, way: dict) -> None:
    trial(f"L1-{name}", quick=name.startswith("threads"), what=str(defect.__doc__))(lambda bench: defect(bench, way))


for _name, _way in WAYS.items():
    _defect(_name, _way)


@trial("L8", quick=True)
def l8(bench: Bench) -> None:
    """The C driver, set-wce=off, an image that QEMU may not open any more; plain writes in write through."""
    bench.need_other_users()
    node = bench.mount()
    bench.files.images["disk"].mode = 0o400
    vm = bench.boot(node, STOCK, props={"set-wce": False},
                    extra=["-run-with", "user=65534:65534"])
    set_mode(vm, "write through")
    bench.load(vm, "steady=through", writer("plain"))
