# SPDX-License-Identifier: GPL-2.0
"""Trials of a disk that is an export of QEMU's storage daemon."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vbw.machine import Config
from vbw.vm import OURS, VM, wait_for_disks

from .bench import BadSetUp, Bench, until
from .raw import CACHE_TYPE, everybody, set_mode, writer
from .trials import trial


class Daemon:
    """The storage daemon with one export, which may be killed and started again."""

    def __init__(self, bench: Bench, node: dict[str, Any], set_wce: bool) -> None:
        self.socket = bench.socket("export")
        self._log = bench.folder / "daemon.log"
        export = {"type": "vhost-user-blk", "id": "export", "node-name": "node", "writable": True,
                  "addr": {"type": "unix", "path": str(self.socket)}, **({"set-wce": True} if set_wce else {})}
        self._command = [
            "setpriv", "--pdeathsig", "KILL", str(bench.env.qemu / "qemu-storage-daemon"), "--blockdev",
            json.dumps({**node, "node-name": "node"}), "--export", json.dumps(export)]
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
def _guest(bench: Bench, node: dict[str, Any]) -> Iterator[tuple[VM, Daemon]]:
    """A guest whose disk is such an export. It ends before the daemon does."""
    known = subprocess.run([bench.env.qemu / "qemu-system-x86_64", "-device", "vhost-user-blk-pci,help"],
                           capture_output=True, text=True, check=True).stdout
    set_wce = "set-wce" in known
    daemon = Daemon(bench, node, set_wce)
    try:
        device: dict[str, Any] = {"driver": "vhost-user-blk-pci", "id": "disk0", "chardev": "export", "num-queues": 1}
        if set_wce:
            device["set-wce"] = True
        config = Config(deadline=900 + 10 * bench.seconds, tolerated=r"I/O error, dev vda", extra=[
            "-object", "memory-backend-memfd,id=memory,size=512M,share=on", "-machine", "memory-backend=memory",
            "-chardev", f"socket,id=export,path={daemon.socket},reconnect-ms=50", "-device", json.dumps(device),
            *bench.ack_port()])
        vm = VM(bench.env, config, bench.folder / "vm0")
        bench.vms.append(vm)
        vm.start()
        vm.load(OURS)
        vm.guest(wait_for_disks(1))
        yield vm, daemon
        bench.finish()
    finally:
        daemon.kill()


@trial("vhost-user")
def switches(bench: Bench) -> None:
    """Every rule at once, the guest switches as fast as it can."""
    with _guest(bench, bench.serve()) as (vm, _):
        bench.load(vm, CACHE_TYPE, "toggle=5000", *everybody())
        bench.at_least("switches", bench.notes["switches"], 10)


@trial("vhost-user-restart", red="after some restarts QEMU does not find the rings again, and the disk is dead")
def restart(bench: Bench) -> None:
    """The guest writes through; the daemon is killed and comes back, and goes on in the guest's mode."""
    with _guest(bench, bench.serve()) as (vm, daemon):
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
