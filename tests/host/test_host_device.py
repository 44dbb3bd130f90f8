# SPDX-License-Identifier: GPL-2.0
"""An image that is a block device of the host, which needs a host that has one to spare.

So the guest is the host here: our QEMU and its tools run in it, on its disk.
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

PROGRAMS = ("qemu-system-x86_64", "qemu-io")
FIRMWARE = ("bios-256k.bin", "kvmvapic.bin")
NODE = "driver=host_device,filename=/dev/vda"
QEMU = ("/qemu/qemu-system-x86_64 -L /qemu -nodefaults -no-user-config -display none -m 32 -S "
        f"-blockdev {NODE},node-name=disk -device virtio-blk-pci,drive=disk,bootindex=0 -qmp stdio")
WRITES = " ".join(f"-c 'write {number * 8}k 4k'" for number in range(5))


@pytest.fixture
def host(env, folder, boot, disk):
    """A guest that has QEMU, with all that it needs, and a disk."""
    archive = cpio.Archive()
    libraries = set()
    for name in PROGRAMS:
        archive.add(f"qemu/{name}", (env.qemu / name).read_bytes(), 0o755)
        needed = subprocess.run(["ldd", env.qemu / name], capture_output=True, text=True, check=True)
        libraries.update(re.findall(r"(/\S+) \(0x", needed.stdout))
    for library in sorted(libraries):
        archive.add(library.lstrip("/"), Path(library).read_bytes(), 0o755)
    for name in FIRMWARE:
        found = (Path(place) / name for place in ("/usr/share/qemu", "/usr/share/seabios"))
        archive.add(f"qemu/{name}", next(path for path in found if path.exists()).read_bytes())
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

    def expect(self, device, synchronous):
        """Wait until only this device is open for writing, with or without O_DSYNC."""
        def as_expected():
            found = [(name, bool(flags & os.O_DSYNC)) for name, flags in self.open_disks()
                     if flags & os.O_ACCMODE == os.O_RDWR]
            return found == [(device, synchronous)]
        until(as_expected, f"{device} is not open as it should be, O_DSYNC {synchronous}")


def number_of_disk(vm):
    """The disk's device number, as Program has it."""
    return vm.guest("stat -c %t:%T /dev/vda")


def replace(vm):
    """Give the disk's name to another device, as may happen on a host."""
    vm.guest("rm /dev/vda && mknod /dev/vda b 7 0")


def test_open_and_reopen(host):
    """cache.dsync, by the descriptor that is open."""
    device = number_of_disk(host)
    program = Program(host, "/qemu/qemu-io", "/run/io")
    program(f"open -o {NODE}")
    program.expect(device, False)
    replace(host)
    for on in (True, False, True):
        program(f"reopen -o cache.dsync={'on' if on else 'off'}")
        program.expect(device, on)
    program("close")
    until(lambda: not program.open_disks(), "the disk is still open")
    program("quit")


@pytest.mark.parametrize("option, flushes", [("off", 1), ("on", 6)])
def test_flushes(host, option, flushes):
    """With O_DSYNC the host's kernel flushes after each of the writes; the last flush is QEMU's own."""
    command = f"/qemu/qemu-io -t writeback --image-opts {NODE},cache.dsync={option} {WRITES}"
    assert flushes_of(host, command) == flushes


def test_mode_of_a_disk(host):
    """The firmware's driver knows of no cache, so the disk is write through while it is used."""
    device = number_of_disk(host)
    program = Program(host, QEMU, "/run/qmp")
    program('{"execute": "qmp_capabilities"}')
    program.expect(device, False)
    replace(host)
    program('{"execute": "cont"}')
    program.expect(device, True)
    program('{"execute": "stop"}')
    program('{"execute": "system_reset"}')
    program.expect(device, False)
    program('{"execute": "quit"}')
    assert program.job.wait(60).status == 0
    assert "error" not in host.guest("cat /run/qmp")
