# SPDX-License-Identifier: GPL-2.0
"""Devices that lose their state and come back: the system suspends, or the bus resets them.

A device that is reset is in the mode it was started with. The guest is in the one that
its user has chosen, sends flushes or not accordingly, and has to make the device agree
before that matters.
"""

import time

import pytest

from test_flushes import flushes_of
from test_switch import expect, guest_view, has_set_wce, set_mode
from vbw.machine import Config, Disk, file_node, flush_fails_node, raw_node

MODES = ("write through", "write back")
STATUS = "/sys/block/vda/cache_type_status"
PORT = ["-device", "pcie-root-port,id=root0,chassis=1"]


# The guest must not be in the middle of an answer when it falls asleep: its lines are not
# buffered.
IDLE = """
until grep -qE 'poll|n_tty_read|wait_woken' /proc/$(cat /run/agent)/wchan; do usleep 10000; done
stty -F /dev/ttyS1 raw -echo
"""

# That it is awake it tells by its console.
AWAKE_MARK = "vbw: awake again"
AWAKE = f"echo '{AWAKE_MARK}' > /dev/ttyS0"

SUSPEND = f"{IDLE}\necho mem > /sys/power/state && {AWAKE}"


def awake(vm):
    """How often the guest has said that it is awake again."""
    return (vm.folder / "console.log").read_text(errors="replace").count(AWAKE_MARK)


def suspend(vm, meanwhile=None):
    """Suspend the guest to memory, do something, and wake it up."""
    times = awake(vm)
    job = vm.guest.start(SUSPEND)
    # After the first time the machine may wake up by itself, by what woke it up then.
    until(lambda: vm.qmp("query-status")["status"] == "suspended" or awake(vm) > times,
          "the guest does not suspend")
    if meanwhile:
        meanwhile()
    if vm.qmp("query-status")["status"] == "suspended":
        vm.qmp("system_wakeup")
    until(lambda: awake(vm) > times, "the guest does not wake up")
    vm.guest.resync()
    assert job.wait(60).status == 0


def until(condition, complaint):
    """Wait for a condition of the host."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, complaint
        time.sleep(0.02)


def reset(vm, meanwhile=None):
    """Have the bus reset the disk's function."""
    vm.guest("echo 1 > $(readlink -f /sys/block/vda/device/..)/reset")
    if meanwhile:
        meanwhile()


WAYS = {"suspend": suspend, "reset": reset}


@pytest.fixture(params=WAYS, ids=WAYS.keys())
def lose_state(request):
    """A way to have the device lose its state."""
    return WAYS[request.param]


@pytest.fixture
def machine(boot, image):
    """Start a machine whose disk can be reset by the bus, and whose guest can be suspended."""

    def start(node=None, driver="virtio_blk_wce", **props):
        node = node or raw_node(file_node(image))
        disk = Disk(node, props={"bus": "root0", **props})
        return boot(Config(disks=[disk], serial=True, extra_first=PORT), driver=driver)

    return start


def wait_for(vm, mode, status):
    """Wait until the guest has brought the mode back, which is not waited for by anybody."""
    vm.guest.until(f"[ \"$(cat /sys/block/vda/cache_type)\" = '{mode}' ]")
    expect(vm, mode, status)


def check_mode_after(vm, lose_state, mode):
    """The mode, flushes and data are what they were, and the mode can be switched."""
    assert set_mode(vm, mode) == "OK"
    assert vm.guest("vbwtool write /dev/vda 0 65536 1") == "OK"
    for _ in range(2):
        lose_state(vm)
        wait_for(vm, mode, f"ok {mode}")
        assert vm.guest("vbwtool verify /dev/vda 0 65536 1") == "OK"
    command = "vbwtool write /dev/vda 0 4096 1 && vbwtool fsync /dev/vda"
    # A device whose mode is configured is flushed in either one.
    needed = mode == "write back" or not has_set_wce(vm)
    assert flushes_of(vm, command) == int(needed)
    other = MODES[1 - MODES.index(mode)]
    assert set_mode(vm, other) == "OK"
    expect(vm, other, f"ok {other}")


@pytest.mark.parametrize("start", ["on", "off"])
@pytest.mark.parametrize("mode", MODES)
def test_mode_is_brought_back(machine, lose_state, start, mode):
    check_mode_after(machine(**{"write-cache": start}), lose_state, mode)


@pytest.mark.parametrize("start, mode", [("on", "write through"), ("off", "write back")])
def test_mode_is_brought_back_by_the_configuration(machine, start, mode):
    check_mode_after(machine(**{"write-cache": start, "set-wce": False}), reset, mode)


def test_mode_that_cannot_be_brought_back(machine, lose_state, image):
    """The guest follows the device then, and says so."""
    # With nothing to flush the switch succeeds, even on this disk; after a write it does not.
    vm = machine(flush_fails_node(image, once=False))
    assert set_mode(vm, "write through") == "OK"
    assert vm.guest("vbwtool write /dev/vda 0 4096 1") == "OK"
    lose_state(vm)
    vm.guest.until("dmesg | grep 'brought back after a reset: write through'")
    wait_for(vm, "write back", "ok write through")
    assert vm.guest("vbwtool write /dev/vda 0 4096 1") == "OK"
    before = vm.host_stats()["failed_flush_operations"]
    assert vm.guest("vbwtool fsync /dev/vda") == "EIO"
    assert vm.host_stats()["failed_flush_operations"] == before + 1


def test_load_goes_on(machine, lose_state):
    """No request is lost, none fails, and what was written is there."""
    vm = machine(**{"num-queues": 2})
    assert set_mode(vm, "write through") == "OK"
    load = vm.guest.start(
        "fio --name=load --filename=/dev/vda --size=16m --rw=randwrite --bs=4k --direct=1 "
        "--ioengine=libaio --iodepth=16 --verify=crc32c --verify_backlog=256 --fsync=64 "
        "--time_based --runtime=600 --output=/run/fio.out")
    for _ in range(3):
        vm.guest("usleep 300000")
        lose_state(vm)
        wait_for(vm, "write through", "ok write through")
    assert load.running(), load.wait().text
    load.signal("INT")
    load.wait(60)
    assert vm.guest("grep -c 'err= 0' /run/fio.out") == "1"


def test_serial_number_is_there_after(machine, lose_state):
    vm = machine(serial="VBW-1")
    for _ in range(2):
        assert vm.guest("cat /sys/block/vda/serial") == "VBW-1"
        lose_state(vm)


def test_switch_that_is_pending(machine, env, image):
    """ENODEV: the device has forgotten it; and the mode is what it was.

    The flush of the switch takes long enough for the reset to begin, which waits for it. So does QEMU
    then, so that nobody could tell it from outside when to go on.
    """
    slow = {"event": "none", "iotype": "flush", "errno": 0, "once": True,
            "delay-ns": 3_000_000_000 * env.patience}
    vm = machine(raw_node({"driver": "blkdebug", "image": file_node(image), "inject-error": [slow]}))
    assert vm.guest("vbwtool write /dev/vda 0 4096 1") == "OK"
    first = vm.guest.start("vbwtool set /sys/block/vda/cache_type 'write through'")
    assert vm.guest(f"vbwtool wait {STATUS} 'pending write through' 10") == "OK"
    second = vm.guest.start("vbwtool set /sys/block/vda/cache_type 'write through'")
    resetting = vm.guest.start("echo 1 > $(readlink -f /sys/block/vda/device/..)/reset")
    assert resetting.wait(30).status == 0
    # The first one may have been answered before the reset; nobody waits for ever.
    assert first.wait(20).text in ("ENODEV", "OK")
    assert second.wait(20).text == "OK"
    wait_for(vm, "write through", "ok write through")


def test_capacity_that_changes_meanwhile(machine):
    vm = machine()
    suspend(vm, lambda: vm.qmp("block_resize", **{"node-name": "disk0-node", "size": 32 << 20}))
    vm.guest.until("[ $(cat /sys/block/vda/size) = 65536 ]")


def test_unbind_and_bind_after(machine, lose_state):
    vm = machine()
    lose_state(vm)
    vm.guest("rmmod virtio_blk_wce")
    vm.load()
    expect(vm, "write back", "none")
    assert guest_view(vm)[0] == "write back"


def test_reset_of_a_device_that_does_nothing(boot, image):
    """One that may not read the guest's memory answers nothing: it is given up, and the reset goes on."""
    vm = boot(Config(disks=[Disk(raw_node(file_node(image)), props={"bus": "root0"})], extra_first=PORT))
    command = "/sys/block/vda/device/../config bs=1 {}=4 count=1 conv=notrunc 2>/dev/null"
    value = int(vm.guest(f"dd if={command.format('skip')} | hexdump -e '1/1 \"%d\"'"))
    assert value & 4, "bus mastering is on"
    vm.guest(f"printf '\\x{value & ~4:02x}' | dd of={command.format('seek')}")
    reader = vm.guest.start("vbwtool verify /dev/vda 0 65536 1")
    vm.guest.until("[ \"$(cat /sys/block/vda/inflight | tr -s ' ' | cut -d' ' -f2)\" = 1 ]")
    resetting = vm.guest.start("echo 1 > $(readlink -f /sys/block/vda/device/..)/reset")
    assert reader.wait(20).text == "EIO"
    assert resetting.wait(20).status == 0
    assert "is given up" in vm.guest("dmesg")
    # It takes another probe to use it again.
    assert vm.guest("vbwtool write /dev/vda 0 4096 1") == "EIO"
    vm.guest("rmmod virtio_blk_wce")
    vm.load()
    assert vm.guest("vbwtool write /dev/vda 0 4096 1") == "OK"
    assert set_mode(vm, "write through") == "OK"
