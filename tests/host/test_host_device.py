# SPDX-License-Identifier: GPL-2.0
"""An image that is a block device of the host, which needs a host that has one to spare.

So the guest is the host here: QEMU's tool runs in it, on its disk.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

from test_flushes import flushes_of
from test_reset import until
from vbw import cpio, initrd
from vbw.machine import Config

pytestmark = pytest.mark.stock_kernel("emulating an emulator is too slow with its checks")

PROGRAMS = ("qemu-io",)
NODE = "driver=host_device,filename=/dev/vda"
WRITES = " ".join(f"-c 'write {number * 8}k 4k'" for number in range(5))


@pytest.fixture
def host(env, folder, boot, disk):
    """A guest that has QEMU's tool, with all that it needs, and a disk."""
    archive = cpio.Archive()
    libraries = set()
    for name in PROGRAMS:
        archive.add(f"qemu/{name}", (env.qemu / name).read_bytes(), 0o755)
        needed = subprocess.run(["ldd", env.qemu / name], capture_output=True, text=True, check=True)
        libraries.update(re.findall(r"(/\S+) \(0x", needed.stdout))
    for library in sorted(libraries):
        archive.add(library.lstrip("/"), Path(library).read_bytes(), 0o755)
    base = initrd.build(env).read_bytes()
    path = folder / "initrd"
    path.write_bytes(base + bytes(-len(base) % 4) + archive.finish())
    yield boot(Config(disks=[disk()], initrd=path, memory_mb=1024))
    path.unlink()


class Program:
    """A program in the guest that takes commands, and the disk as it has it open."""

    def __init__(self, vm, command, answers):
        self.vm = vm
        self.answers = answers
        vm.guest(f"mkfifo {answers}.in")
        # Somebody has to have it open for as long as commands come.
        vm.guest.start(f"exec sleep 1000 > {answers}.in")
        self.job = vm.guest.start(f"exec {command} < {answers}.in > {answers} 2>&1")
        self.name = command.split()[0]

    def __call__(self, command):
        self.vm.guest(f"echo '{command}' > {self.answers}.in")

    def open_disks(self):
        """The device and the flags of each descriptor of a block device."""
        text = self.vm.guest(
            f"for p in $(pidof {Path(self.name).name}); do cd /proc/$p/fd && for f in *; do [ -b $f ] && "
            "echo $(stat -L -c %t:%T $f) $(sed -n 's/^flags:[[:space:]]*//p' ../fdinfo/$f); done; done; true")
        return [(device, int(flags, 8)) for device, flags in map(str.split, text.splitlines())]

    def expect(self, device, direct):
        """Wait until only this device is open for writing, with or without O_DIRECT."""
        def as_expected():
            found = [(name, bool(flags & os.O_DIRECT)) for name, flags in self.open_disks()
                     if flags & os.O_ACCMODE == os.O_RDWR]
            return found == [(device, direct)]
        until(as_expected, f"{device} is not open as it should be, O_DIRECT {direct}")


def number_of_disk(vm):
    """The disk's device number, as Program has it."""
    return vm.guest("stat -c %t:%T /dev/vda")


def replace(vm):
    """Give the disk's name to another device, as may happen on a host."""
    vm.guest("rm /dev/vda && mknod /dev/vda b 7 0")


def test_open_and_reopen(host):
    """Not by the name, which has become that of another device."""
    device = number_of_disk(host)
    program = Program(host, "/qemu/qemu-io", "/run/io")
    program(f"open -o {NODE}")
    program.expect(device, False)
    replace(host)
    for on in (True, False, True):
        program(f"reopen -o cache.direct={'on' if on else 'off'}")
        program.expect(device, on)
    program("close")
    until(lambda: not program.open_disks(), "the disk is still open")
    program("quit")


@pytest.mark.parametrize("mode, flushes", [("writeback", 1), ("writethrough", 6)])
def test_flushes(host, mode, flushes):
    """Each of five writes is flushed; the last flush is that of closing the disk."""
    command = f"/qemu/qemu-io -t {mode} --image-opts {NODE} {WRITES}"
    assert flushes_of(host, command) == flushes
