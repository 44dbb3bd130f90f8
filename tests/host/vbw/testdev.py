# SPDX-License-Identifier: GPL-2.0
"""Disks that tests/device is: what they are made of, and how they are told to misbehave."""

import select
import subprocess
import time
from pathlib import Path
from typing import Any

from .env import Env
from .machine import Config

CONFIG_SIZE = 96
_MEMORY = "testdev-memory"


class TestDevice:
    """A process that is a virtio block device, for one machine."""

    __test__ = False

    def __init__(self, env: Env, sockets: Path, folder: Path, name: str, *options: str,
                 queues: int = 1) -> None:
        self.name = name
        self.queues = queues
        # Not in the test's folder: the name of a socket can't be that long.
        self.socket = sockets / f"{name}.sock"
        with (folder / f"{name}.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", env.testdev, "--socket", str(self.socket),
                 "--queues", str(queues), *options],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self._rest = b""
        try:
            self._answer("(its start)")
        except AssertionError as error:
            self.end()
            error.add_note((folder / f"{name}.log").read_text(errors="replace"))
            raise

    def _answer(self, what: str) -> str:
        end = time.monotonic() + 20
        while b"\n" not in self._rest:
            left = end - time.monotonic()
            assert left > 0, f"no answer from the test device to: {what}"
            if select.select([self._process.stdout], [], [], left)[0]:
                data = self._process.stdout.read1()
                assert data, f"the test device ended before it answered to: {what}"
                self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        word, _, rest = line.decode().partition(" ")
        assert word == "ok", f"the test device says to {what}: {line.decode()}"
        return rest

    def tell(self, command: str) -> str:
        """Give a command, and return what the device says to it."""
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()
        return self._answer(command)

    def misbehave(self, what: str) -> None:
        """Do something wrong from now on, or that often: NAME or NAME:TIMES."""
        self.tell(f"misbehave {what}")

    def behave(self) -> None:
        """Do nothing wrong any more."""
        self.tell("behave")

    def count(self, what: str) -> int:
        """How often it has done that wrong."""
        return int(self.tell(f"count {what}"))

    def ring(self) -> tuple[int, int]:
        """The descriptors of the first queue's ring, and how many are those of requests held back."""
        size, held = self.tell("ring").split()
        return int(size), int(held)

    def requests(self, kind: int) -> int:
        """How many requests of a type, VIRTIO_BLK_T_..., it has executed."""
        return int(self.tell(f"requests {kind}"))

    def release(self) -> int:
        """Answer what was held back; returns how much that was."""
        return int(self.tell("release"))

    def priority(self) -> int:
        """The priority of the last write, as its header has it."""
        return int(self.tell("priority"))

    def config(self, offset: int, value: int, size: int) -> None:
        """Put a number into the configuration space."""
        self.tell(f"config {offset}={value.to_bytes(size, 'little').hex()}")

    def arguments(self) -> list[str]:
        """QEMU's arguments for it."""
        return ["-chardev", f"socket,id={self.name}-socket,path={self.socket}",
                "-device", f"vhost-user-device-pci,id={self.name},chardev={self.name}-socket,"
                f"virtio-id=2,num_vqs={self.queues},vq_size=1024,config_size={CONFIG_SIZE}"]

    def end(self) -> None:
        """End it, if the machine's end has not done that."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


def machine_with(*devices: TestDevice, memory_mb: int = 512, **more: Any) -> Config:
    """A machine with such disks. They share its memory."""
    memory = f"memory-backend-memfd,id={_MEMORY},size={memory_mb}M,share=on"
    extra = ["-object", memory, "-machine", f"memory-backend={_MEMORY}"]
    for device in devices:
        extra += device.arguments()
    return Config(memory_mb=memory_mb, extra=extra, **more)
