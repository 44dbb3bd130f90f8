# SPDX-License-Identifier: GPL-2.0
"""Without set-wce a disk is what it is in stock QEMU: what it sends in a migration, and its system calls."""

import dataclasses
import re

import pytest

from test_migration import MACHINE, Journey, migrated
from test_switch import MODES, has_set_wce, set_mode
from vbw.machine import Config

# A section of a migration's stream, up to the data: its number, the name of what it is about with the
# name's length before it, instance and version. A byte and the number again follow the data.
SECTION = re.compile(rb"\x04(....)(.)(\d{4}:\d\d:\d\d\.\d/virtio-blk)(.{8})", re.S)
END = b"\x7e"


def disk_in(stream):
    """What a migration's stream says about its only disk."""
    data = stream.read_bytes()
    found = [section for section in SECTION.finditer(data) if section[2][0] == len(section[3])]
    assert len(found) == 1, [section[3] for section in found]
    head = found[0]
    return head[3] + head[4] + data[head.end():data.index(END + head[1], head.end())]


@pytest.fixture
def configs(disk):
    """The same machine for stock QEMU and for this one."""
    return {True: Config(machine=MACHINE, disks=[disk()], stock_qemu=True),
            False: Config(machine=MACHINE, disks=[disk(**{"set-wce": False})])}


def test_stream(boot, configs, folder):
    """What comes from stock QEMU is sent on as stock QEMU does it, to the byte."""
    journey = Journey(boot, folder / "state")
    sent = {}
    for mode in MODES:
        vm = boot(configs[True])
        assert set_mode(vm, mode) == "OK"
        assert vm.guest("vbwtool write /dev/vda 0 65536 1 && vbwtool fsync /dev/vda") == "OK\nOK"
        vm.qmp("stop")
        journey.send(vm)
        sent[mode] = disk_in(journey.state)
        for config in configs.values():
            vm = boot(dataclasses.replace(config, extra=["-incoming", "defer"]), incoming=True)
            vm.qmp("migrate-incoming", uri=f"file:{journey.state}")
            migrated(vm)
            assert vm.qmp("query-status")["status"] == "paused"
            further = folder / "further"
            vm.qmp("migrate", uri=f"file:{further}")
            migrated(vm)
            vm.kill()
            assert disk_in(further) == sent[mode], f"stock QEMU: {config.stock_qemu}"
            further.unlink()
    journey.state.unlink()
    # They would be equal as well if the disk was not in them.
    assert len(set(sent.values())) == len(MODES)


CALLS = ["openat", "fcntl", "ioctl", "flock", "fstat", "statx", "lseek", "close", "pread64", "preadv", "preadv2",
         "pwrite64", "pwritev", "pwritev2", "fdatasync", "fsync", "fallocate"]
REQUESTS = ["vbwtool write /dev/vda 40960 4096 1", "vbwtool fsync /dev/vda", "vbwtool write /dev/vda 0 65536 2",
            "vbwtool verify /dev/vda 0 65536 2", "blkdiscard -o 8192 -l 8192 /dev/vda"]


def calls_for(vm, log, image, command):
    """The system calls about the image that a command in the guest leads to, with what they have in numbers."""
    before = log.stat().st_size
    vm.guest(command)
    with log.open() as file:
        file.seek(before)
        lines = re.findall(r"^\d+ +(\w+)\((.*)", file.read(), re.M)
    # The second part of a call that another one interrupts does not begin like that.
    return [(name, re.findall(r", (\d+)\b", arguments.split(" = ")[0])) for name, arguments in lines
            if str(image) in arguments]


def test_system_calls(boot, configs, image, folder):
    """In write back: stock QEMU's write through owes flushes, see test_every_write_through_is_flushed."""
    made = {}
    for stock, config in configs.items():
        log = folder / f"strace-{stock}"
        wrapper = ["strace", "-f", "-y", "-o", str(log), "--seccomp-bpf", "-e", f"trace={','.join(CALLS)}"]
        vm = boot(dataclasses.replace(config, wrapper=wrapper))
        assert not has_set_wce(vm)
        made[stock] = {command: calls_for(vm, log, image, command) for command in REQUESTS}
        # A switch there and back leaves nothing behind.
        for mode in MODES:
            assert set_mode(vm, mode) == "OK"
        made[stock]["again"] = calls_for(vm, log, image, REQUESTS[0])
        vm.finish()
    assert made[False] == made[True]
    assert made[True][REQUESTS[0]] == [("pwrite64", ["4096", "40960"])]
    assert [name for name, _ in made[True][REQUESTS[1]]] == ["fdatasync"]
