# SPDX-License-Identifier: GPL-2.0
"""Trials of disks that are processes of their own: of QEMU's storage daemon, and of somebody else's device."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vbw.machine import Config
from vbw.vm import OURS, VM, wait_for_disks

from .bench import BadSetUp, Bench, until
from .raw import CACHE_TYPE, everybody, set_mode, writer
from .trials import trial


class Daemon:
    """A process that is a disk, which may be killed and started again."""

    def __init__(self, bench: Bench, command: list[str]) -> None:
        self.socket = bench.socket("export")
        self._log = bench.folder / "daemon.log"
        self._command = ["setpriv", "--pdeathsig", "KILL", *command]
        self.start()

    def start(self) -> None:
        """Start it."""
        self.socket.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(lambda: self.socket.exists() or self._process.poll() is not None, "the daemon's start")
        if self._process.poll() is not None:
            raise BadSetUp(f"the daemon does not start: {self._log.read_text()}")

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()


@contextmanager
def _guest(bench: Bench, command: list[str], device: dict[str, Any]) -> Iterator[tuple[VM, Daemon]]:
    """A guest whose disk is such a process. It ends before that does."""
    daemon = Daemon(bench, command)
    # The device that knows nothing of disks does not come back, either.
    reconnects = device["driver"] == "vhost-user-blk-pci"
    try:
        config = Config(deadline=900 + 10 * bench.seconds, tolerated=r"I/O error, dev vda", extra=[
            "-object", "memory-backend-memfd,id=memory,size=512M,share=on", "-machine", "memory-backend=memory",
            "-chardev", f"socket,id=export,path={daemon.socket}" + ",reconnect-ms=50" * reconnects,
            "-device", json.dumps({"id": "disk0", "chardev": "export", **device}), *bench.ack_port()])
        vm = VM(bench.env, config, bench.folder / "vm0")
        bench.vms.append(vm)
        vm.start()
        vm.load(OURS)
        vm.guest(wait_for_disks(1))
        yield vm, daemon
        bench.finish()
    finally:
        daemon.kill()


def _frontend(bench: Bench, queues: int = 1) -> dict[str, Any]:
    """QEMU's device for such disks; it passes the requests to switch on, if it knows them."""
    known = subprocess.run([bench.env.qemu / "qemu-system-x86_64", "-device", "vhost-user-blk-pci,help"],
                           capture_output=True, text=True, check=True).stdout
    return {"driver": "vhost-user-blk-pci", "num-queues": queues,
            **({"set-wce": True} if "set-wce" in known else {})}


def _storage_daemon(bench: Bench, device: dict[str, Any]) -> list[str]:
    """The command of QEMU's storage daemon with one export."""
    export = {"type": "vhost-user-blk", "id": "export", "node-name": "node", "writable": True,
              "addr": {"type": "unix", "path": str(bench.socket("export"))},
              **({"set-wce": True} if "set-wce" in device else {})}
    return [str(bench.env.qemu / "qemu-storage-daemon"), "--blockdev",
            json.dumps({**bench.serve(), "node-name": "node"}), "--export", json.dumps(export)]


@trial("vhost-user")
def switches(bench: Bench) -> None:
    """Every rule at once, the guest switches as fast as it can."""
    device = _frontend(bench)
    with _guest(bench, _storage_daemon(bench, device), device) as (vm, _):
        bench.load(vm, CACHE_TYPE, "toggle=5000", *everybody())
        bench.at_least("switches", bench.notes["switches"], 10)


@trial("vhost-user-restart")
def restart(bench: Bench) -> None:
    """The guest writes through; the daemon is killed and comes back, and goes on in the guest's mode."""
    device = _frontend(bench)
    with _guest(bench, _storage_daemon(bench, device), device) as (vm, daemon):
        def step() -> None:
            time.sleep(0.5 + bench.random.random())
            daemon.kill()
            before = bench.judge.acknowledged
            daemon.start()
            # To be killed while QEMU connects to it breaks a device for good, with any QEMU.
            until(lambda: bench.judge.acknowledged > before, "the guest goes on")
            bench.note("restarts", 1)
        for words in ([writer("fsync")], [writer("aio", depth=4)], ["steady=through", writer("plain")]):
            set_mode(vm, "write through")
            bench.load(vm, *words, meanwhile=step, steps=1, may_fail=True, seconds=max(3, bench.seconds / 2))
            mode = vm.guest("cat /sys/block/vda/cache_type")
            bench.note(f"times in {mode} after that", 1)
        bench.at_least("restarts", bench.notes["restarts"], 2)


def _interop(name: str, generic: bool, quick: bool) -> None:
    @trial(name, quick=quick, what="A device made from the specification's text, two queues; the guest switches "
           + ("(QEMU hands all of it on)" if generic else "(behind QEMU's vhost-user-blk)"))
    def interop(bench: Bench) -> None:
        image = bench.mount()["filename"]
        device = {"driver": "vhost-user-device-pci", "virtio-id": 2, "num_vqs": 2, "vq_size": 1024,
                  "config_size": 96} if generic else _frontend(bench, 2)
        command = [str(Path(bench.env.testdev).with_name("vbw-specdev")), "--socket", str(bench.socket("export")),
                   "--image", image, "--queues", "2"]
        with _guest(bench, command, device) as (vm, _):
            bench.expect("queues", int(vm.guest("ls /sys/block/vda/mq | wc -l")), 2)
            bench.load(vm, CACHE_TYPE, "toggle=5000", *everybody())
            bench.at_least("switches", bench.notes["switches"], 10)


_interop("interop", True, True)
_interop("interop-vhost-user-blk", False, False)
