# SPDX-License-Identifier: GPL-2.0
"""A guest whose driver takes one input after the other, and what it executes of the driver."""

import json
import select
import socket
import tempfile
from pathlib import Path

from vbw import kernel_log
from vbw.env import Env
from vbw.guest import GuestError
from vbw.machine import covered
from vbw.testdev import TestDevice, machine_with
from vbw.vm import OURS, VM

from .inputs import Input

PORT = "vbw.fuzz"
DRIVER = f"/sys/bus/virtio/drivers/{OURS}"
# What a device may keep a driver waiting for before that gives it up, and some more.
PATIENCE = 90
# Devices by name: the options that make them.
DEVICES: dict[str, list[str]] = {
    "plain": ["--with", "secure-erase", "--with", "size-max"],
    "config-wce": ["--without", "set-wce", "--queues", "2"],
    "zoned": ["--zones", "4096", "--max-open", "4"],
    "small": ["--without", "indirect", "--without", "flush"],
}


class Finding(Exception):
    """An input after which the guest is not what it should be."""


class Target:
    """One guest with one device. The driver has no disk but while an input is run."""

    def __init__(self, env: Env, folder: Path, device: str, plugin: Path | None = None) -> None:
        self._sockets = tempfile.TemporaryDirectory(prefix="vbw-")
        folder.mkdir(parents=True, exist_ok=True)
        path = Path(self._sockets.name) / "fuzz"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(1)
        options = DEVICES[device]
        queues = int(options[options.index("--queues") + 1]) if "--queues" in options else 1
        options = [word for at, word in enumerate(options)
                   if word != "--queues" and options[at - 1:at] != ["--queues"]]
        self._device = TestDevice(env, Path(self._sockets.name), folder, device, *options, queues=queues)
        self._covered = folder / "covered"
        self._seen = 0
        config = machine_with(self._device, deadline=1e6)
        config.extra += ["-chardev", f"socket,id=fuzz,path={path}",
                         # In this form, like the bus that it is for: QEMU takes them in another order.
                         "-device", json.dumps({"driver": "virtserialport", "chardev": "fuzz", "name": PORT})]
        if plugin:
            config.extra_first += covered(plugin, self._covered)
            config.kernel_args = "nokaslr"
        self.vm = VM(env, config, folder / "vm")
        self.vm.start()
        self._port = listener.accept()[0]
        listener.close()
        self.vm.load(OURS)
        # What a guest of a real machine would wait for a grace period for, this one has no time for.
        self.vm.guest("echo 1 > /sys/kernel/rcu_expedited")
        sections = f"/sys/module/{OURS}/sections"
        self._text = self._text_range(sections)
        name = self.vm.guest(f"cd {DRIVER} && echo virtio*")
        self.vm.guest(f"echo {name} > {DRIVER}/unbind")
        self._tool = self.vm.guest.start(
            f"exec vbwfuzz /dev/$(basename $(dirname $(grep -lx {PORT} /sys/class/virtio-ports/*/name))) {name}")
        self._device.tell("script ")
        self.new_blocks()

    def _text_range(self, sections: str) -> range:
        start = int(self.vm.guest(f"cat {sections}/.text"), 16)
        size = int(self.vm.guest(f"awk '$1 == \"{OURS}\" {{ print $2 }}' /proc/modules"))
        return range(start, start + size)

    def run(self, entry: Input) -> str:
        """Run one input; returns what the guest says of it. Raises Finding if the guest does not get over it."""
        self._device.tell(f"script {entry.script.hex()}")
        self._port.sendall(bytes((entry.use,)))
        if not select.select([self._port], [], [], PATIENCE * self.vm.env.patience)[0]:
            raise Finding(f"no answer within {PATIENCE} s\n{self._waiting()}")
        answer = self._port.recv(1).decode()
        if answer not in ("r", "d", "s"):
            raise Finding(f"the guest's answer is {answer!r}")
        return answer

    def _waiting(self) -> str:
        """What waits for what in the guest."""
        try:
            return self.vm.guest("grep -l 'State:.D\\|^Name:.vbwfuzz' /proc/[0-9]*/status | while read -r path; do "
                                 "head -n 1 $path; cat ${path%status}stack; done")
        except GuestError as error:
            return f"the guest does not say what for: {error}"

    def check(self) -> None:
        """Raise Finding if the guest's kernel has complained."""
        bad = kernel_log.bad_lines(self.vm.kernel_log())
        if bad:
            raise Finding("\n".join(map(str, bad[:20])))

    def new_blocks(self) -> int:
        """How many blocks of the driver's code have been executed for the first time since the last call."""
        if not self._covered.exists():
            return 0
        with self._covered.open() as file:
            file.seek(self._seen)
            text = file.read()
        whole = text[:text.rfind("\n") + 1]
        self._seen += len(whole)
        return sum(int(line.split()[0], 16) in self._text for line in whole.splitlines())

    def close(self) -> list[str]:
        """End it; returns what its kernel complained about."""
        try:
            self._port.close()
            try:
                self.vm.finish()
            except GuestError:
                pass
            return [str(line) for line in kernel_log.bad_lines(self.vm.kernel_log())]
        finally:
            self.vm.kill()
            self._device.end()
            self._sockets.cleanup()
