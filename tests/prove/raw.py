# SPDX-License-Identifier: GPL-2.0
"""Trials on the raw disk, served by NBD."""

from vbw.vm import STOCK, VM

from . import cuts, movers
from .bench import MIB, BadSetUp, Bench
from .nbd import Delays
from .trials import trial

DISK = "/dev/vda"
SYSFS = "/sys/block/vda"
CACHE_TYPE = f"cache_type={SYSFS}/cache_type"

# One writer by each rule. Every one has its own part of the disk.
RULES = ("fsync", "fdatasync", "dsync", "rwf", "aio", "aio-rwf", "aio-fsync", "uring", "uring-rwf",
         "uring-fsync")
IN_FLIGHT = ("aio", "aio-rwf", "aio-fsync", "uring", "uring-rwf", "uring-fsync")


def writer(how: str, index: int = 0, blocks: int = 256, **more: object) -> str:
    """A writer of the raw disk, with part number index of so many blocks."""
    words = [f"writer={how}", f"path={DISK}", f"first={index * blocks}", f"at={index * blocks}",
             f"blocks={blocks}"]
    return ",".join(words + [f"{key}={value}" for key, value in more.items()])


def set_mode(vm: VM, mode: str) -> None:
    """Switch, and see that it was done."""
    answer = vm.guest(f"vbwtool set {SYSFS}/cache_type '{mode}'")
    if answer != "OK":
        raise AssertionError(f"cache_type: {mode}: {answer}")


def everybody(depth: int = 4, blocks: int = 256) -> list[str]:
    """A writer by each rule, those with several in flight, and those by the mode alone."""
    words = [writer(how, index, blocks, depth=depth if how in IN_FLIGHT else 1) for index, how in enumerate(RULES)]
    return words + [writer(how, len(RULES) + index, blocks)
                    for index, how in enumerate(("plain", "zero", "zero-fsync", "switch"))]


@trial("stock-pair", control=True, quick=True)
def stock_pair(bench: Bench) -> None:
    """The C driver and a QEMU without the series, switched by the guest under load."""
    vm = bench.boot(bench.serve(), STOCK, stock=True)
    bench.load(vm, CACHE_TYPE, "toggle=3000", writer("fsync", 0), writer("dsync", 1))
    bench.at_least("switches", bench.notes["switches"], 20)


@trial("switches", quick=True)
def switches(bench: Bench) -> None:
    """Every rule at once, small writes, the guest switches as fast as it can; cuts."""
    vm = bench.boot(bench.serve())
    bench.load(vm, CACHE_TYPE, "toggle=2000", *everybody(), meanwhile=cuts.of_raw_disk(bench))
    bench.at_least("switches", bench.notes["switches"], 20)
    bench.at_least("cuts", bench.notes["cuts"], 5)


@trial("cuts", long=45)
def many_cuts(bench: Bench) -> None:
    """Every rule at once on a small disk, the guest switches as fast as it can; one cut after the other."""
    vm = bench.boot(bench.serve(size=2 * MIB))
    bench.load(vm, CACHE_TYPE, "toggle=2000", *everybody(blocks=32), meanwhile=cuts.of_raw_disk(bench, 0.005))
    bench.at_least("switches", bench.notes["switches"], 20)
    bench.at_least("cuts", bench.notes["cuts"], 20)


def _one_after_the_other(bench: Bench, pause_us: int, **more: object) -> None:
    vm = bench.boot(bench.serve())
    ways = [*RULES, "plain", "switch", "zero", "zero-fsync"]
    bench.random.shuffle(ways)
    for how in ways:
        depth = 4 if how in IN_FLIGHT else 1
        bench.load(vm, CACHE_TYPE, f"toggle={pause_us}", writer(how, depth=depth, **more),
                   seconds=max(1, bench.seconds / 4))
    bench.at_least("switches", bench.notes["switches"], 20)


@trial("alone", quick=True)
def alone(bench: Bench) -> None:
    """One writer at a time, so that no other's flush hides a loss, by each rule; the guest switches."""
    _one_after_the_other(bench, 20000)


@trial("alone-large")
def alone_large(bench: Bench) -> None:
    """The same with writes of 1 MiB."""
    _one_after_the_other(bench, 60000, size=MIB, blocks=2048)


@trial("alone-buffered")
def alone_buffered(bench: Bench) -> None:
    """The same through the guest's page cache."""
    vm = bench.boot(bench.serve())
    for how in ("fsync", "fdatasync", "dsync", "rwf", "aio", "uring-fsync"):
        bench.load(vm, CACHE_TYPE, "toggle=20000", writer(how, buffered=1), seconds=max(1, bench.seconds / 3))
    bench.at_least("switches", bench.notes["switches"], 20)


@trial("write-back", quick=True)
def write_back(bench: Bench) -> None:
    """Every rule but the plain writes', in write back throughout."""
    vm = bench.boot(bench.serve())
    bench.load(vm, *everybody()[:len(RULES)], meanwhile=cuts.of_raw_disk(bench))
    bench.at_least("flushes", bench.storage.counts["flush"], 10)


@trial("write-through", quick=True)
def write_through(bench: Bench) -> None:
    """Every rule in write through throughout, plain writes too."""
    vm = bench.boot(bench.serve())
    set_mode(vm, "write through")
    bench.load(vm, "steady=through", *everybody()[:-1], meanwhile=cuts.of_raw_disk(bench))


@trial("L2", quick=True)
def l2(bench: Bench) -> None:
    """One writer of 1 MiB by AIO with O_DSYNC, few requests, short ones; the guest switches."""
    # Slow writes, so that most of a bio waits for a tag when a switch comes.
    vm = bench.boot(bench.serve(delays=Delays(write=(0.006, 0.02))))
    vm.guest(f"echo 64 > {SYSFS}/queue/max_sectors_kb; echo 4 > {SYSFS}/queue/nr_requests")
    bench.expect("max_sectors_kb", vm.guest(f"cat {SYSFS}/queue/max_sectors_kb"), "64")
    bench.expect("nr_requests", vm.guest(f"cat {SYSFS}/queue/nr_requests"), "4")
    bench.load(vm, CACHE_TYPE, "toggle=30000", writer("aio", blocks=1024, size=MIB))
    bench.at_least("switches", bench.notes["switches"], 20)


@trial("L3", quick=True)
def l3(bench: Bench) -> None:
    """Small writes by AIO with O_DSYNC below a cgroup's io.max; the guest switches."""
    vm = bench.boot(bench.serve())
    vm.guest("mkdir /tmp/cg && mount -t cgroup2 none /tmp/cg && echo +io > /tmp/cg/cgroup.subtree_control && "
             f"mkdir /tmp/cg/slow && echo $(cat {SYSFS}/dev) wiops=100 > /tmp/cg/slow/io.max")
    bench.at_least("limits in io.max", vm.guest("cat /tmp/cg/slow/io.max").count("wiops=100"), 1)
    bench.load(vm, CACHE_TYPE, "toggle=50000", writer("aio", depth=16),
               prefix="echo 0 > /tmp/cg/slow/cgroup.procs; exec ")
    bench.at_least("switches", bench.notes["switches"], 10)
    if bench.notes["sent"] > 200 * bench.seconds:
        raise BadSetUp(f"{bench.notes['sent']} writes are more than the limit lets through")


@trial("L5", quick=True)
def l5(bench: Bench) -> None:
    """Flushes are turned off by hand, and the guest's next switch to write back turns them on."""
    vm = bench.boot(bench.serve())
    bench.load(vm, CACHE_TYPE, "toggle=20000", f"by_hand={SYSFS}/queue/write_cache", *everybody(1)[:len(RULES)])
    bench.at_least("switches", bench.notes["switches"], 20)


@trial("L6", quick=True)
def l6(bench: Bench) -> None:
    """The host switches both ways; one writer by fsync."""
    vm = bench.boot(bench.serve())
    bench.load(vm, writer("fsync"), meanwhile=movers.host_switches(bench, vm), steps=10)
    bench.at_least("host switches", bench.notes["host switches"], 20)


@trial("queues")
def queues(bench: Bench) -> None:
    """Four CPUs and queues, in two iothreads, every rule, the guest switches."""
    iothreads = [word for index in range(2) for word in ("-object", f"iothread,id=thread{index}")]
    vm = bench.boot(bench.serve(), cpus=4, extra_first=iothreads, props={
        "num-queues": 4, "iothread-vq-mapping": [{"iothread": "thread0"}, {"iothread": "thread1"}]})
    bench.expect("queues", int(vm.guest(f"ls {SYSFS}/mq | wc -l")), 4)
    bench.load(vm, CACHE_TYPE, "toggle=5000", *everybody(), meanwhile=cuts.of_raw_disk(bench))
    bench.at_least("switches", bench.notes["switches"], 20)


@trial("polled")
def polled(bench: Bench) -> None:
    """A queue that is polled, and one that is not; the guest switches."""
    vm = bench.boot(bench.serve(), params="poll_queues=1", props={"num-queues": 2})
    bench.expect("io_poll", vm.guest(f"cat {SYSFS}/queue/io_poll"), "1")
    bench.load(vm, CACHE_TYPE, "toggle=20000", writer("uring-poll", depth=8))
    bench.load(vm, CACHE_TYPE, "toggle=20000", writer("uring-poll", depth=8), writer("fsync", 1), writer("aio", 2))
    bench.at_least("switches", bench.notes["switches"], 20)


@trial("limits", quick=True)
def limits(bench: Bench) -> None:
    """Every rule, while max_sectors_kb and nr_requests change in write back."""
    vm = bench.boot(bench.serve())
    words = everybody()[:len(RULES)] + [writer("aio", 4, blocks=1024, size=MIB)]
    bench.load(vm, *words, meanwhile=movers.limits(bench, vm))
    bench.at_least("changes of limits", bench.notes["limits"], 5)
