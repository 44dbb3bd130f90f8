# SPDX-License-Identifier: GPL-2.0
"""What a request costs a guest, counted to the instruction by scripts/plugin/count.c."""

import bisect
import lzma
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vbw import cpio, initrd
from vbw.env import Env
from vbw.machine import Config, Disk, file_node, raw_node
from vbw.vm import VM

# Scatterlists, and what only Rust calls: what these call is for the driver, too.
SUPPORT = re.compile(r"(sg|__sg)_\w+|rust_helper_\w+|_R\w+")

# Functions of virtqueues and of the block layer for drivers. What they call is not the driver's business: memory
# for descriptors, and whoever waits for the request.
OTHERS = re.compile(
    r"(virtqueue|vring|vp|virtio|detach_buf)_\w+|"
    r"(__)?blk_mq_(start_request|complete_request\w*|end_request\w*|requeue_request|add_to_batch\w*)|"
    r"__blk_rq_map_sg|blk_map_iter_next|bvec_split_segs")

# Functions that jump to another one on this CPU.
GENERIC = {"memset": "memset_orig", "memcpy": "memcpy_orig"}

LOCKS = re.compile(r"_*(raw_spin_(un)?lock\w*|rcu_read_(un)?lock\w*|local_bh_\w+|preempt_\w+)")

# A queue to poll needs a CPU more than the other one, which is never started. A CPU with nothing to do stops
# its tick at once and sleeps, and nothing decides how.
ARGS = "cpuidle.off=1 nokaslr maxcpus=1 tsc_early_khz=1000000 mitigations=off"


# One disk answers at once, for all requests of a batch together. Who waits for the other one is asleep when
# it answers, each time.
PROMPT, LATE = "vda", "vdb"
LATENCY_NS = 1_000_000

# Disks with a file system and a file in it; they take as long as the host does.
FILE_SYSTEMS = {"vdc": "ext4", "vdd": "xfs"}
# The smallest that mkfs.xfs makes.
IMAGE_BYTES = 300 << 20
FILE_MIB = 16


@dataclass(frozen=True)
class Load:
    """Requests of one kind: those that loadtool makes for its name, and how many block requests."""

    tool: str
    number: int = 960
    mode: str = "write back"
    disk: str = PROMPT

    @property
    def place(self) -> str:
        """What is read and written: the disk, the file in its file system, or the disk's mode."""
        if self.tool == "switch":
            return f"/sys/block/{self.disk}/cache_type"
        return f"/{self.disk}/file" if self.disk in FILE_SYSTEMS else f"/dev/{self.disk}"


LOADS = {
    "read, depth 1": Load("read", disk=LATE),
    "write, depth 1": Load("write", disk=LATE),
    "read, depth 32": Load("read32"),
    "write, depth 32": Load("write32"),
    "read, batches of 16": Load("read16"),
    "write, batches of 16": Load("write16"),
    "write and fsync": Load("fsync", 480, disk=LATE),
    "O_DSYNC, write back": Load("dsync", 480, disk=LATE),
    "O_DSYNC, write through": Load("dsync", 480, mode="write through", disk=LATE),
    # How often a file system logs a write over others depends on the clock, by the times of the file. So one
    # load needs nothing logged, and another one needs it for each of its writes.
    "ext4, write and fdatasync, write through": Load("fdatasync", 480, mode="write through", disk="vdc"),
    "ext4, append and fsync, write through": Load("append", 480, mode="write through", disk="vdc"),
    "XFS, write and fdatasync, write through": Load("fdatasync", 480, mode="write through", disk="vdd"),
    "XFS, append and fsync, write through": Load("append", 480, mode="write through", disk="vdd"),
    "read of 128 KiB": Load("long", 320, disk=LATE),
    "discard": Load("discard", 480, disk=LATE),
    # Back and forth: by a request, or with virtio_blk by a write into the configuration space.
    "switch of the write cache": Load("switch", 480),
    "read, polled": Load("poll"),
}
# To know what a turn costs that finds nothing: the answer comes after so many turns that the rest is lost.
POLLED = "read, polled"
SLOW_TURNS = "read, polled, slow"
SLOW = Load("poll", 48, disk=LATE)


@dataclass(frozen=True)
class Cost:
    """Instructions: of the driver's module, of what it calls, of locks that it takes, and of the guest."""

    own: float
    called: float
    locks: float
    whole: float

    @property
    def decided(self) -> float:
        """What the driver decides about."""
        return self.own + self.called + self.locks


class Function(NamedTuple):
    """A function, and whether it is one of the driver's module."""

    name: str
    mine: bool


class Symbols:
    """The functions of a guest's kernel."""

    def __init__(self, kallsyms: str, module: str) -> None:
        known: dict[int, Function] = {}
        for line in kallsyms.splitlines():
            address, _, name, *owner = line.split()
            mine = owner == [f"[{module}]"]
            # Of several names for one place the first is the function's own.
            known.setdefault(int(address, 16), Function(name, mine))
        self.addresses = sorted(known)
        self.functions = [known[address] for address in self.addresses]

    def __getitem__(self, address: int) -> Function:
        """The function that has an instruction."""
        return self.functions[bisect.bisect_right(self.addresses, address) - 1]

    def begins(self, address: int) -> bool:
        """Whether a function begins here."""
        index = bisect.bisect_left(self.addresses, address)
        return index < len(self.addresses) and self.addresses[index] == address


class Counts:
    """What the plugin has counted between two marks."""

    def __init__(self, lines: list[str], symbols: Symbols) -> None:
        self.user = int(lines[0].split()[1], 16)
        # How many instructions of each function were executed, and how often it began.
        self.functions: Counter[Function] = Counter()
        self.entries: Counter[Function] = Counter()
        # How often a function was called for the driver that others call as well.
        self.calls: Counter[Function] = Counter()
        for line in lines[1:]:
            address, count, target = (int(word, 16) for word in line.split())
            function = symbols[address]
            self.functions[function] += count
            if symbols.begins(address):
                self.entries[function] += count
            if target and is_for_drivers(function) and not is_of_drivers(symbols[target]):
                self.calls[symbols[target]] += count

    def cost(self) -> Cost:
        """Of all requests together."""
        own = sum(count for function, count in self.functions.items() if function.mine)
        called = sum(count for function, count in self.functions.items()
                     if not function.mine and is_of_drivers(function))
        locks = 0.0
        for function, number in self.calls.items():
            # What the function calls in turn, such as the allocator's slow path, is not counted.
            each = self.each(function)
            if function.name in GENERIC:
                each += self.each(Function(GENERIC[function.name], False))
            if LOCKS.fullmatch(function.name):
                locks += number * each
            else:
                called += number * each
        return Cost(own, called, locks, sum(self.functions.values()) + self.user)

    def each(self, function: Function) -> float:
        """How many instructions a function executes in a call of it."""
        return self.functions[function] / max(1, self.entries[function])

    def turns(self) -> int:
        """How often the driver looked for answers of a queue that is polled."""
        return sum(count for function, count in self.entries.items()
                   if function.mine and re.search(r"virtblk_poll|Vtable.*4poll", function.name))


def is_for_drivers(function: Function) -> bool:
    """Whether what a function calls is for the driver."""
    return function.mine or bool(SUPPORT.fullmatch(function.name))


def is_of_drivers(function: Function) -> bool:
    """Whether nobody but the driver has a function called."""
    return is_for_drivers(function) or bool(OTHERS.fullmatch(function.name))


def sections(text: str) -> Iterator[list[str]]:
    """What was counted between two marks, for each pair of them."""
    lines: list[str] = []
    for line in text.splitlines():
        if line == "end":
            yield lines
            lines = []
        else:
            lines.append(line)


def file_systems(folder: Path) -> list[Disk]:
    """Disks that each have a file system."""
    disks = []
    for disk, kind in FILE_SYSTEMS.items():
        image = folder / f"{disk}.img"
        with image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        # Nothing is left for the guest to initialize while it is counted.
        options = ["-E", "lazy_itable_init=0,lazy_journal_init=0"] if kind == "ext4" else []
        subprocess.run([f"mkfs.{kind}", "-q", *options, image], check=True)
        disks.append(Disk(raw_node(file_node(image)), name=f"disk-{kind}", props={"num-queues": 2}))
    return disks


def modules_archive(env: Env, folder: Path) -> Path:
    """An initramfs with the file systems that the kernel has as modules."""
    archive = cpio.Archive()
    for kind in FILE_SYSTEMS.values():
        packed = Path(f"/usr/lib/modules/{env.release}/kernel/fs/{kind}/{kind}.ko.xz")
        if packed.exists():
            archive.add(f"modules/{kind}.ko", lzma.decompress(packed.read_bytes()))
    base = initrd.build(env).read_bytes()
    path = folder / "initrd"
    path.write_bytes(base + bytes(-len(base) % 4) + archive.finish())
    return path


def count(env: Env, plugin: Path, driver: str, module: str,
          say: Callable[[str], None], loads: dict[str, Load] | None = None) -> dict[str, Counts]:
    """Put all loads on a driver's disk, in a guest of its own."""
    loads = loads or {**LOADS, SLOW_TURNS: SLOW}
    with tempfile.TemporaryDirectory(dir=env.out) as name:
        folder = Path(name)
        result = folder / "counts"
        # Each CPU that is possible has a queue, and with poll_queues there is one more. A device takes
        # requests up within the instruction by which it is told of them.
        disks = [Disk({"driver": "null-co", "size": 64 << 20, "read-zeroes": True, **more}, name=disk,
                      props={"num-queues": 2, "ioeventfd": False})
                 for disk, more in (("disk0", {}), ("disk1", {"latency-ns": LATENCY_NS}))]
        mounted = [disk for disk in FILE_SYSTEMS if disk in {load.disk for load in loads.values()}]
        if mounted:
            disks += file_systems(folder)
        config = Config(disks=disks, cpus=2, kernel_args=ARGS, start_seconds=250, deadline=1800,
                        initrd=modules_archive(env, folder) if mounted else None,
                        extra=["-icount", "shift=0", "-plugin", f"{plugin},out={result}"])
        vm = VM(env, config, folder)
        vm.start()
        try:
            vm.guest(f"insmod {module} poll_queues=1")
            vm.guest("until [ -b /dev/vda ] && [ -b /dev/vdb ]; do usleep 20000; done")
            for disk in mounted:
                kind = FILE_SYSTEMS[disk]
                vm.guest(f"! [ -e /modules/{kind}.ko ] || insmod /modules/{kind}.ko; mkdir /{disk}; "
                         f"until [ -b /dev/{disk} ]; do usleep 20000; done; "
                         f"mount -t {kind} /dev/{disk} /{disk} && "
                         f"dd if=/dev/zero of=/{disk}/file bs=1M count={FILE_MIB} && sync", 600)
            symbols = Symbols(vm.guest("grep -i ' [tw] ' /proc/kallsyms", 300), driver)
            for what, load in loads.items():
                say(f"instructions, {driver}: {what}")
                vm.guest(f"echo '{load.mode}' > /sys/block/{load.disk}/cache_type")
                vm.guest(f"loadtool {load.tool} {load.place} {load.number} 96", 600)
            for disk in mounted:
                vm.guest(f"umount /{disk}", 300)
            vm.finish()
        finally:
            vm.kill()
        return dict(zip(loads, (Counts(lines, symbols) for lines in sections(result.read_text()))))


def per_request(load: Load, counts: Counts) -> Cost:
    """What one request costs."""
    cost = counts.cost()
    return Cost(*(value / load.number for value in (cost.own, cost.called, cost.locks, cost.whole)))


def polled(counts: dict[str, Counts]) -> tuple[float, float]:
    """What the driver decides of a turn that finds nothing, and of a request with the turn that finds it."""
    fast, slow = counts[POLLED], counts[SLOW_TURNS]
    # COST = EMPTY * (TURNS - REQUESTS) + FULL * REQUESTS, twice.
    (a, b, c), (d, e, f) = (
        (each.turns() - load.number, load.number, each.cost().decided)
        for each, load in ((fast, LOADS[POLLED]), (slow, SLOW)))
    empty = (c * e - b * f) / (a * e - b * d)
    return empty, (c - empty * a) / b
