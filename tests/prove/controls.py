# SPDX-License-Identifier: GPL-2.0
"""Controls: our own driver with one line broken, built for the trial. A judge that sees nothing there is blind."""

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .bench import BadSetUp, Bench
from .nbd import Delays
from .raw import CACHE_TYPE, RULES, everybody, writer
from .trials import trial

_LAYER, _DRIVER = "rust/kernel/block", "drivers/block/virtio_blk_wce"


@dataclass(frozen=True)
class Break:
    """A line of the driver or its layer, and what it is changed to."""

    path: str
    old: str
    new: str


BREAKS = {
    "broken-announcement": Break(
        f"{_LAYER}/limits.rs", "self.0.features |= bindings::BLK_FEAT_WRITE_CACHE;", "self.0.features |= 0;"),
    "broken-flush": Break(
        f"{_DRIVER}/request.rs", "if !blk.cache.needs_flushes() {", "if true {"),
    "broken-fua": Break(
        f"{_DRIVER}/flush.rs", "} else if blk.cache.needs_flushes() &&", "} else if false &&"),
    "broken-sharing": Break(
        f"{_DRIVER}/flush.rs", "        flushes.waiting.push_tail(rq);",
        "        if flushes.under_way { flushes.covered.push_tail(rq) } else { flushes.waiting.push_tail(rq) }"),
    "broken-order": Break(
        f"{_DRIVER}/switch.rs",
        "Phase::Wanted(Mode::WriteBack, _) | Phase::Asked(Mode::WriteBack, _)",
        "Phase::Over(Mode::WriteBack, ..) if false"),
}


def build(bench: Bench, broken: Break) -> Path:
    """Build the module from a copy of the sources with that line changed."""
    # Another checkout's sources, where its module is judged.
    source = Path(os.environ.get("VBW_PROVE_SOURCES") or bench.env.src)
    text = (source / broken.path).read_text()
    if text.count(broken.old) != 1:
        raise BadSetUp(f"{broken.path} has {text.count(broken.old)} times: {broken.old}")
    # At a place of its own, where Kbuild finds what it has built there before.
    name = hashlib.sha256(f"{source}\0{broken}".encode()).hexdigest()[:16]
    copy = bench.env.cache / "prove" / name
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    for part in ("include", "rust", "drivers", "scripts"):
        shutil.copytree(source / part, copy / part)
    shutil.copy2(source / "Kbuild", copy / "Kbuild")
    (copy / broken.path).write_text(text.replace(broken.old, broken.new))
    made = subprocess.run([copy / "scripts" / "module.sh", "--objects"], capture_output=True, text=True, check=False)
    if made.returncode:
        raise BadSetUp(f"the broken driver does not build:\n{made.stderr[-3000:]}")
    module = bench.folder / "virtio_blk_wce.ko"
    shutil.copy2(Path(made.stdout.strip().splitlines()[-1]) / module.name, module)
    return module


@trial("broken-announcement", control=True, quick=True)
def broken_announcement(bench: Bench) -> None:
    """Our driver does not say that the disk has a volatile cache: the block layer sends no flush."""
    bench.with_module(build(bench, BREAKS["broken-announcement"]))
    vm = bench.boot(bench.serve())
    bench.load(vm, *everybody()[:len(RULES)])


@trial("broken-flush", control=True)
def broken_flush(bench: Bench) -> None:
    """Our driver answers every flush itself."""
    bench.with_module(build(bench, BREAKS["broken-flush"]))
    vm = bench.boot(bench.serve())
    bench.load(vm, writer("fsync", 0), writer("fdatasync", 1))


@trial("broken-fua", control=True)
def broken_fua(bench: Bench) -> None:
    """Our driver sends no flush after a write with FUA."""
    bench.with_module(build(bench, BREAKS["broken-fua"]))
    vm = bench.boot(bench.serve())
    bench.load(vm, writer("aio", depth=4))


@trial("broken-sharing", control=True)
def broken_sharing(bench: Bench) -> None:
    """Our driver has a write share a flush that was under way before the write was complete."""
    bench.with_module(build(bench, BREAKS["broken-sharing"]))
    vm = bench.boot(bench.serve(delays=Delays(flush=(0.02, 0.05))))
    bench.load(vm, writer("aio", depth=16))


@trial("broken-order", control=True)
def broken_order(bench: Bench) -> None:
    """Our driver flushes from when the device has answered to the switch to write back, not from before."""
    bench.with_module(build(bench, BREAKS["broken-order"]))
    vm = bench.boot(bench.serve())
    bench.load(vm, CACHE_TYPE, "toggle=2000", writer("aio", depth=16), writer("fsync", 1))
