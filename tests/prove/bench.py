# SPDX-License-Identifier: GPL-2.0
"""What one trial is run on: a storage that forgets, the judge, and a guest, with one order of events."""

import asyncio
import contextlib
import dataclasses
import json
import random
import re
import shlex
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from vbw import guest as vbw_guest
from vbw.env import Env, has_other_users, may_mount
from vbw.machine import Config, Disk, raw_node
from vbw.vm import OURS, VM

from . import fuse, nbd
from .judge import Judge
from .storage import Storage

T = TypeVar("T")
MIB = 1 << 20
PORT_NAME = "vbw.ack"


class BadSetUp(Exception):
    """A trial that is not what it says it is, so that its outcome says nothing."""


class NotHere(Exception):
    """A trial that needs what this machine or user does not have."""


def knows_set_wce(folder: Path) -> bool:
    """Whether a QEMU has the property that lets a driver switch by request."""
    answer = subprocess.run([folder / "qemu-system-x86_64", "-device", "virtio-blk-pci,help"],
                            capture_output=True, text=True, check=True)
    return "set-wce" in answer.stdout


def until(condition: Callable[[], Any], what: str, seconds: float = 60) -> None:
    """Wait for a condition of the host."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise BadSetUp(f"waited in vain: {what}")
        time.sleep(0.02)


class Bench:
    """One trial's storage, judge and guest. seconds is how long a load is to last."""

    def __init__(self, env: Env, folder: Path, seed: int, seconds: float) -> None:
        self.env = env
        self.folder = folder
        self.seconds = seconds
        self.random = random.Random(seed)
        self.notes: Counter[str] = Counter()
        self.vms: list[VM] = []
        self._runs = 0
        self._sockets = tempfile.TemporaryDirectory(prefix="prove-")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stops: list[Callable[[], Awaitable[None]]] = []
        self._storages: list[Storage] = []
        self.storage: Storage
        self.judge: Judge
        self.files: fuse.FileSystem | None = None
        self._devices: list[str] = []
        # Whether every guest lives to say how many acknowledgements it has sent.
        self.sent_is_known = True

    # The loop in which storage and judge live

    def call(self, function: Callable[[], T]) -> T:
        """Run something between two events of the storage."""
        async def run() -> T:
            return function()
        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(120)

    def _await(self, what: Awaitable[T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(60)  # type: ignore[arg-type]

    def socket(self, name: str) -> Path:
        """A path that is short enough for a socket."""
        return Path(self._sockets.name) / name

    def _judge(self, size: int, content: Path | None, where: str) -> None:
        self.storage = Storage(self.folder / "storage", size, content)
        self._storages.append(self.storage)
        self.judge = Judge(self.storage, where)
        self._await(self.judge.start(self.socket("ack")))
        self._stops.append(self.judge.stop)

    def serve(self, size: int = 64 * MIB, content: Path | None = None, where: str = "in place",
              **options: Any) -> dict[str, Any]:
        """Make the storage and its judge; returns the block node of its NBD export."""
        self._judge(size, content, where)
        server = nbd.Server(self.storage, self.random.getrandbits(32), **options)
        path = self.socket("nbd")
        self._await(server.start(path))
        self._stops.append(server.stop)
        return {"driver": "nbd", "server": {"type": "unix", "path": str(path)}, "export": "disk"}

    def mount(self, size: int = 64 * MIB, content: Path | None = None, where: str = "in place",
              aio: str = "threads", direct: bool = False, **options: Any) -> dict[str, Any]:
        """Make the storage and its judge; returns the block node of it as a file."""
        if not may_mount():
            raise NotHere("/dev/fuse cannot be opened")
        self._judge(size, content, where)
        self.files = fuse.FileSystem(self.socket("mnt"), self.random.getrandbits(32), **options)
        path = self.files.add("disk", self.storage)
        self._await(self.files.start())
        self._stops.append(self.files.stop)
        return {"driver": "file", "filename": str(path), "aio": aio,
                "cache": {"direct": direct or aio == "native"}}

    @contextlib.contextmanager
    def device(self, node: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Make a file that is mounted a block device of the host, which somebody has to open meanwhile."""
        found = subprocess.run(["losetup", "--find", "--show", node["filename"]], capture_output=True, text=True)
        if found.returncode:
            raise NotHere(found.stderr.strip())
        name = found.stdout.strip()
        self._devices.append(name)
        try:
            yield {**node, "driver": "host_device", "filename": name}
        finally:
            # From now on it is there for as long as it is open, so that nothing is left behind by whoever is killed.
            subprocess.run(["losetup", "--detach", name], check=True)

    def second(self, judged: bool = True) -> dict[str, Any]:
        """Another storage of the same size and kind; if judged, a record may as well be there."""
        target = Storage(self.folder / "second", self.storage.size)
        self._storages.append(target)
        if judged:
            self.judge.second = target
            target.found = None if self.storage.found is None else {}
        if self.files:
            return {"driver": "file", "filename": str(self.files.add("second", target)), "aio": "threads"}
        server = nbd.Server(target, self.random.getrandbits(32))
        path = self.socket("second")
        self._await(server.start(path))
        self._stops.append(server.stop)
        return {"driver": "nbd", "server": {"type": "unix", "path": str(path)}, "export": "disk"}

    # The guest

    def ack_port(self) -> list[str]:
        """QEMU's arguments for the port by which the guest acknowledges."""
        return ["-chardev", f"socket,id=ack,path={self.socket('ack')}",
                "-device", json.dumps({"driver": "virtserialport", "chardev": "ack", "name": PORT_NAME})]

    def boot(self, node: dict[str, Any], driver: str = OURS, params: str = "", stock: bool = False,
             format_node: Callable[[dict[str, Any]], dict[str, Any]] = raw_node,
             props: dict[str, Any] | None = None, **config: Any) -> VM:
        """Start a guest with a driver and one disk."""
        props = dict(props or {})
        folder = self.env.qemu_stock if stock else self.env.qemu
        if knows_set_wce(folder):
            props.setdefault("set-wce", True)
        else:
            props.pop("set-wce", None)
        # Where there are serial lines, because the guest is to be suspended, it is one, too.
        ack = ["-chardev", f"socket,id=ack,path={self.socket('ack')}", "-serial", "chardev:ack"] \
            if config.get("serial") else self.ack_port()
        extra = config.pop("extra", []) + ack
        machine = Config(disks=[Disk(format_node(node), props=props)], stock_qemu=stock, extra=extra,
                         deadline=900 + 10 * self.seconds, **config)
        vm = VM(self.env, machine, self.folder / f"vm{len(self.vms)}")
        self.vms.append(vm)
        vm.start()
        vm.load(driver, params)
        return vm

    def move(self, vm: VM) -> VM:
        """Send the guest to a file, and have another QEMU take it from there, while it writes."""
        state = self.folder / f"state{len(self.vms)}"
        vm.qmp("migrate", uri=f"file:{state}")
        self._arrive(vm, "the migration")
        vm.kill()
        config = dataclasses.replace(vm.config, extra=[*vm.config.extra, "-incoming", "defer"])
        there = VM(self.env, config, self.folder / f"vm{len(self.vms)}")
        self.vms.append(there)
        there.launch()
        there.qmp("migrate-incoming", uri=f"file:{state}")
        self._arrive(there, "the arrival")
        state.unlink()
        there.guest.resync()
        there.config = vm.config
        self.note("journeys", 1)
        return there

    def _arrive(self, vm: VM, what: str) -> None:
        until(lambda: vm.qmp("query-migrate").get("status") in ("completed", "failed"), f"the end of {what}", 120)
        self.expect(what, vm.qmp("query-migrate")["status"], "completed")

    def port(self, vm: VM) -> str:
        """The guest's device by which it acknowledges."""
        if vm.config.serial:
            return vm.guest("stty -F /dev/ttyS3 raw -echo; echo /dev/ttyS3")
        return vm.guest("n=0; until p=$(grep -lx " + PORT_NAME + " /sys/class/virtio-ports/*/name); do "
                        "n=$((n + 1)); [ $n -lt 500 ] || exit 1; usleep 20000; done; "
                        "p=${p%/name}; echo /dev/${p##*/}")

    def start_load(self, vm: VM, *words: str, seconds: float | None = None,
                   prefix: str = "") -> vbw_guest.Job:
        """Start provetool; "writer=..." and other words are its arguments."""
        self._runs += 1
        seconds = seconds or self.seconds
        command = ["provetool", "load", f"ack={self.port(vm)}", f"run={self._runs}",
                   f"seconds={max(1, round(seconds))}", f"until=/tmp/stop{self._runs}", *words]
        return vm.guest.start(prefix + " ".join(map(shlex.quote, command)))

    def stop_load(self, vm: VM) -> None:
        """Have the load that was started last end before its time."""
        vm.guest(f"touch /tmp/stop{self._runs}")

    def end_load(self, job: vbw_guest.Job, timeout: float | None = None, may_fail: bool = False) -> None:
        """Wait for its end, and add up what it says. No write may fail, unless may_fail."""
        output = job.wait(timeout or self.seconds + 60)
        if output.status != 0:
            raise BadSetUp(f"provetool: status {output.status}: {output.text}")
        totals = re.search(r"acked=(\d+) failed=(\d+) switches=(\d+) refused=(\d+)", output.text)
        if not totals:
            raise BadSetUp(f"provetool says: {output.text}")
        for name, value in zip(("sent", "failed", "switches", "refused"), totals.groups()):
            self.note(name, int(value))
        if self.notes["failed"] and not may_fail:
            raise BadSetUp(f"a write of the guest failed: {output.text}")

    def load(self, vm: VM, *words: str, meanwhile: Callable[[], None] | None = None,
             steps: int = 5, seconds: float | None = None, may_fail: bool = False, prefix: str = "") -> None:
        """Run provetool to its end, and do something again and again meanwhile, at least so many times."""
        seconds = seconds or self.seconds
        job = self.start_load(vm, *words, seconds=seconds + 600 if meanwhile else seconds, prefix=prefix)
        end = time.monotonic() + seconds
        if meanwhile:
            while (steps > 0 or time.monotonic() < end) and job.running():
                meanwhile()
                steps -= 1
            self.stop_load(vm)
        self.end_load(job, seconds + 300, may_fail)

    def cut(self, path: Path) -> dict[int, int]:
        """Cut the power: what is left goes to a file. Returns what was acknowledged by then.

        It happens at any moment, or as soon as something is acknowledged, which leaves no time to what is late.
        """
        lucky = self.random if self.random.random() < 0.7 else None
        acked: dict[int, int] = {}
        done = threading.Event()

        def cut() -> None:
            self.storage.snapshot(path, lucky)
            acked.update(self.judge.acked)
            done.set()

        def cut_soon() -> None:
            self.judge.at_next = cut

        def cut_now() -> None:
            if not done.is_set():
                self.judge.at_next = None
                cut()
        if self.random.random() < 0.5:
            self.call(cut_soon)
            done.wait(2)
        self.call(cut_now)
        self.note("cuts", 1)
        return acked

    def need_other_users(self) -> None:
        """Raise if there is only one user in this namespace."""
        if not has_other_users():
            raise NotHere("there are no other users in this namespace")

    def note(self, name: str, value: int) -> None:
        """Add to a number that is shown with the result."""
        self.notes[name] = self.notes.get(name, 0) + value

    def expect(self, what: str, found: Any, wanted: Any) -> None:
        """Raise if the set-up is not what the trial needs."""
        if found != wanted:
            raise BadSetUp(f"{what} is {found!r}, not {wanted!r}")

    def at_least(self, what: str, found: int, least: int) -> None:
        """Raise if something did not happen often enough to say anything."""
        if found < least:
            raise BadSetUp(f"{what}: only {found}, not {least}")

    # The end

    def finish(self) -> None:
        """Power the guests off, and check their logs."""
        for vm in self.vms:
            vm.finish()
        for vm in self.vms:
            vm.check_log()

    def close(self) -> None:
        """End whatever there still is."""
        for vm in self.vms:
            vm.kill()
        for name in self._devices:
            until(lambda path=Path("/sys/block", Path(name).name, "loop"): not path.exists(), f"the end of {name}")
        for stop in self._stops:
            self._await(stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        for storage in self._storages:
            storage.close()
        self._sockets.cleanup()

    def with_module(self, module: Path) -> None:
        """Use another build of the driver."""
        self.env = dataclasses.replace(self.env, module=module)
