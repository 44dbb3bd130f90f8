# SPDX-License-Identifier: GPL-2.0
"""A guest moves to another QEMU, and its disk's mode with it.

It goes by way of a file: one QEMU has ended when the other one starts. Nothing is added to
what QEMU sends: the mode is in the configuration space, which has always been sent.
"""

import dataclasses
import subprocess

import pytest

from test_durability import tracer
from test_errors import write_and_verify
from test_flushes import flushes_of
from test_host_switch import host_sets
from test_reset import until
from test_switch import MODES, expect, has_set_wce, set_mode
from vbw.machine import Config, Disk, file_node, raw_node
from vbw.vm import OURS, STOCK

# Our QEMU is built with few devices, the stock one with all: hence what both have.
MACHINE = "pc-q35-10.0,hpet=off,vmport=off"
STATUS = "/sys/block/vda/cache_type_status"
FSYNC = "vbwtool write /dev/vda 0 4096 1 && vbwtool fsync /dev/vda"
SECOND = 1000


def guest_mode(vm):
    """The mode that the guest goes by. The kernel's own driver reads cache_type from the device."""
    return vm.guest("cd /sys/block/vda; [ -e cache_type_status ] && cat cache_type || cat queue/write_cache")


def migrated(vm):
    """Wait for the end of a migration, and return what QEMU knows about it."""
    ended = ("completed", "failed")
    until(lambda: vm.qmp("query-migrate").get("status") in ended, "the migration does not end")
    info = vm.qmp("query-migrate")
    assert info["status"] == "completed", info
    return info


class Journey:
    """The way of one guest through several machines."""

    def __init__(self, boot, state):
        self.boot = boot
        self.state = state

    def send(self, vm):
        """Send the guest off; returns how long, in ms, it stood still for that."""
        vm.qmp("migrate", uri=f"file:{self.state}")
        downtime = migrated(vm)["downtime"]
        vm.kill()
        return downtime

    def receive(self, config, paused=False):
        """Start a machine that the guest comes to; go on with one that was paused."""
        config = dataclasses.replace(config, extra=[*config.extra, "-incoming", "defer"])
        vm = self.boot(config, incoming=True)
        vm.qmp("migrate-incoming", uri=f"file:{self.state}")
        migrated(vm)
        if paused:
            vm.qmp("cont")
        vm.guest.resync()
        return vm


@pytest.fixture
def journey(boot, folder):
    state = folder / "state"
    yield Journey(boot, state)
    state.unlink(missing_ok=True)


WAYS = {
    # whether it is the stock QEMU: first, then there, then back; whether SET_WCE is on where it is not
    "stock-and-patched": ((True, False, True), False),
    "patched-and-stock": ((False, True, False), False),
    "patched-without-set-wce": ((False, False, False), False),
    "patched": ((False, False, False), True),
}


@pytest.mark.parametrize("stock, set_wce", WAYS.values(), ids=WAYS.keys())
def test_there_and_back(journey, boot, disk, stock, set_wce):
    """Unless the guest uses SET_WCE, it can go to any QEMU."""
    config, stock_config = (Config(machine=MACHINE, disks=[disk(**props)])
                            for props in ({"set-wce": set_wce}, {}))
    configs = [dataclasses.replace(stock_config if there else config, stock_qemu=there) for there in stock]
    vm = boot(configs[0])
    assert has_set_wce(vm) == set_wce
    for seed, there in enumerate(configs[1:], 1):
        assert (guest_mode(vm), vm.host_mode()) == ("write back", "write back")
        assert vm.guest(f"vbwtool write /dev/vda 0 65536 {seed}") == "OK"
        journey.send(vm)
        vm = journey.receive(there)
        assert (guest_mode(vm), vm.host_mode()) == ("write back", "write back")
        assert vm.guest(f"vbwtool verify /dev/vda 0 65536 {seed}") == "OK"
        assert flushes_of(vm, FSYNC) == 1
    for mode in MODES:
        assert set_mode(vm, mode) == "OK"
        expect(vm, mode, f"ok {mode}")
        write_and_verify(vm, 65536, 3)


DISKS = {
    # driver, stock QEMU, properties, the mode that the guest chooses
    "set-wce": (OURS, False, {}, "write through"),
    "config-wce": (STOCK, False, {"set-wce": False}, "write through"),
    "started-in-write-through": (OURS, False, {"write-cache": "off"}, "write back"),
    "stock": (STOCK, True, {}, "write through"),
}


@pytest.mark.parametrize("driver, stock, props, mode", DISKS.values(), ids=DISKS.keys())
def test_mode_goes_with_the_guest(journey, boot, disk, driver, stock, props, mode):
    """The stock pair is here to show what happens to a guest whose mode does not."""
    config = Config(machine=MACHINE, disks=[disk(**props)], stock_qemu=stock)
    vm = boot(config, driver=driver)
    assert set_mode(vm, mode) == "OK"
    assert (guest_mode(vm), vm.host_mode()) == (mode, mode)
    journey.send(vm)

    vm = journey.receive(config)
    assert guest_mode(vm) == mode
    assert vm.host_mode() == ("write back" if stock else mode)
    assert flushes_of(vm, FSYNC) == (mode == "write back"), "the guest goes by its mode"


ORIGINS = {
    # stock QEMU at first, properties there, the mode that the guest chooses
    "stock": (True, {}, "write through"),
    "stock-in-write-through": (True, {"write-cache": "off"}, "write back"),
    "patched": (False, {}, "write through"),
}


@pytest.mark.parametrize("stock, props, mode", ORIGINS.values(), ids=ORIGINS.keys())
def test_mode_comes_from_the_configuration_space(journey, boot, disk, stock, props, mode):
    """Any QEMU sends what its guest has last read there or written."""
    config = Config(machine=MACHINE, disks=[disk(**props)], stock_qemu=stock)
    vm = boot(config, driver=STOCK)
    assert set_mode(vm, mode) == "OK"
    journey.send(vm)

    vm = journey.receive(dataclasses.replace(config, stock_qemu=False))
    assert (guest_mode(vm), vm.host_mode()) == (mode, mode)
    assert flushes_of(vm, FSYNC) == (mode == "write back"), "the guest goes by its mode"
    vm.guest("rmmod virtio_blk")
    vm.load(STOCK)
    start = "write through" if props else "write back"
    assert (guest_mode(vm), vm.host_mode()) == (start, start), "a reset brings the first mode back"


def test_mode_that_the_guest_has_not_read(journey, boot, disk):
    """The host has just changed it, and goes on there with what it has said here."""
    config = Config(machine=MACHINE, disks=[disk()])
    vm = boot(config)
    vm.qmp("stop")
    host_sets(vm, "write through")
    journey.send(vm)
    vm = journey.receive(config, paused=True)
    assert vm.host_mode() == "write through"
    until(lambda: vm.guest("cat /sys/block/vda/cache_type") == "write through", "the guest is not told")


def test_mode_of_a_driver_that_is_gone(journey, boot, disk):
    """What a driver wrote into the configuration space means nothing to the next one."""
    config = Config(machine=MACHINE, disks=[disk()], stock_qemu=True)
    vm = boot(config, driver=STOCK)
    assert set_mode(vm, "write through") == "OK"
    vm.guest("rmmod virtio_blk")
    journey.send(vm)
    vm = journey.receive(dataclasses.replace(config, stock_qemu=False))
    vm.load(STOCK)
    assert (guest_mode(vm), vm.host_mode()) == ("write back", "write back")


FLUSHES = {
    # what strace does to the flush, the guest's answer, the mode afterwards
    "works": ("", "OK", "write through"),
    "fails": (":error=EIO", "EIO", "write back"),
}


@pytest.mark.parametrize("fault, answer, mode", FLUSHES.values(), ids=FLUSHES.keys())
def test_switch_under_way(journey, boot, env, image, folder, fault, answer, mode):
    """The guest stops in the middle of the flush; whoever waits gets the answer afterwards."""
    delay = 8 * env.patience
    slow = tracer(folder / "strace") + [
        "-e", f"inject=fdatasync:delay_enter={delay}s:when=1{fault}"]
    # Without the host's page cache, which QEMU does not trust any more after a failed flush
    node = raw_node(file_node(image, cache={"direct": True}))
    config = Config(machine=MACHINE, disks=[Disk(node)])
    vm = boot(dataclasses.replace(config, wrapper=slow))
    assert vm.guest("vbwtool write /dev/vda 0 65536 1") == "OK"
    writer = vm.guest.start("vbwtool set /sys/block/vda/cache_type 'write through'")
    assert vm.guest(f"vbwtool wait {STATUS} 'pending write through' 10") == "OK"
    # All that keeps it that long is the flush
    assert journey.send(vm) > SECOND

    vm = journey.receive(config)
    writer.guest = vm.guest
    assert writer.wait(20).text == answer
    expect(vm, mode, f"ok {mode}" if answer == "OK" else f"error write through {answer}")
    assert vm.guest("vbwtool verify /dev/vda 0 65536 1") == "OK"
    for mode in MODES:
        assert set_mode(vm, mode) == "OK"
        expect(vm, mode, f"ok {mode}")


@pytest.mark.parametrize("stock", [False, True], ids=["patched", "stock"])
def test_snapshot(boot, env, folder, stock):
    """A snapshot has the mode of its time, and not the one of now."""
    image = folder / "disk.qcow2"
    subprocess.run([env.qemu / "qemu-img", "create", "-q", "-f", "qcow2", image, "64M"], check=True)
    node = {"driver": "qcow2", "file": file_node(image)}
    vm = boot(Config(machine=MACHINE, disks=[Disk(node)], stock_qemu=stock))

    def hmp(command):
        answer = vm.qmp("human-monitor-command", **{"command-line": command})
        assert not answer.strip(), answer

    for name, mode in (("through", "write through"), ("back", "write back")):
        assert set_mode(vm, mode) == "OK"
        hmp(f"savevm {name}")
    for name, mode in (("through", "write through"), ("back", "write back"),
                       ("through", "write through")):
        hmp(f"loadvm {name}")
        vm.guest.resync()
        assert guest_mode(vm) == mode
        assert vm.host_mode() == ("write back" if stock else mode)
    image.unlink()
