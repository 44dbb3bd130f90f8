# SPDX-License-Identifier: GPL-2.0
"""The test device, with the kernel's own driver and with ours: that it is a sound disk."""

import subprocess

import pytest

from test_errors import write_and_verify
from test_switch import guest_view, set_mode
from vbw.guest import GuestError
from vbw.testdev import machine_with
from vbw.vm import OURS, STOCK, wait_for_disks

SYS = "/sys/block/vda"
MIB = 1 << 20
DRIVERS = [STOCK, OURS]


@pytest.fixture
def machine(boot, testdev):
    """Start a machine with one test device and a driver."""

    def start(driver, *options, queues=1):
        device = testdev(*options, queues=queues)
        vm = boot(machine_with(device), driver=driver)
        vm.guest(wait_for_disks(1))
        return vm, device

    return start


def fill(vm, number=4):
    """Write some MiB, each with its own pattern."""
    for seed in range(number):
        assert vm.guest(f"vbwtool write /dev/vda {seed * MIB} {MIB} {seed}") == "OK"


def expect_only(vm, zero, number=4):
    """These MiB are zeroes, and the others as they were."""
    for seed in range(number):
        if seed in zero:
            where = f"dd if=/dev/vda bs=1M skip={seed} count=1 iflag=direct 2>/dev/null"
            assert vm.guest(f"{where} | tr -d '\\0' | wc -c") == "0"
        else:
            assert vm.guest(f"vbwtool verify /dev/vda {seed * MIB} {MIB} {seed}") == "OK"


@pytest.mark.parametrize("driver", DRIVERS)
def test_io(machine, folder, driver):
    image = folder / "disk.img"
    vm, _ = machine(driver, "--file", str(image), "--serial", "a-serial-number", queues=2)
    assert vm.guest(f"cat {SYS}/serial") == "a-serial-number"
    assert vm.guest(f"ls {SYS}/mq").split() == ["0", "1"]
    fill(vm)
    output = vm.guest.run(
        "fio --name=io --filename=/dev/vda --size=16m --rw=randrw --bs=4k --direct=1 "
        "--ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1", 60)
    assert "err= 0" in output.text
    assert vm.guest("vbwtool fsync /dev/vda") == "OK"
    image.unlink()


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("command", [
    f"blkdiscard -o {MIB} -l {2 * MIB} /dev/vda",
    f"vbwtool zero /dev/vda {MIB} {2 * MIB}",
    f"blkdiscard -s -o {MIB} -l {2 * MIB} /dev/vda",
], ids=["discard", "zeroes", "secure"])
def test_ranges(machine, driver, command):
    vm, _ = machine(driver, "--with", "secure-erase")
    fill(vm)
    if driver == STOCK and "-s" in command.split():
        # It tells the direction of data by the lowest bit of a request's type, and the type of this
        # one is even: the device gets nothing to read, and a place to write the ranges to.
        with pytest.raises(GuestError, match="Input/output error"):
            vm.guest(command)
        expect_only(vm, ())
        return
    vm.guest(command)
    expect_only(vm, (1, 2))


@pytest.mark.parametrize("driver", DRIVERS)
def test_discards_that_become_one(machine, folder, driver):
    """Each of the ranges of one request is discarded, and nothing else."""
    image = folder / "disk.img"
    vm, _ = machine(driver, "--file", str(image))
    fill(vm, 16)
    vm.guest("loadtool discard16 /dev/vda 16 0")
    requests, merged, sectors = map(int, vm.guest(f"cat {SYS}/stat").split()[11:14])
    assert requests < 16 == requests + merged and sectors == 16 * 8
    content = image.read_bytes()
    found = {at for at in range(0, 16 * MIB, 4096) if not any(content[at:at + 4096])}
    # The blocks that loadtool goes through.
    assert found == {number * 1237 % 4096 * 4096 for number in range(16)}
    image.unlink()


def test_switch(machine):
    vm, device = machine(OURS)
    assert guest_view(vm) == ["write back", "write back", "none"]
    for mode in ("write through", "write back", "write through"):
        assert set_mode(vm, mode) == "OK"
        assert guest_view(vm) == [mode, "write back", f"ok {mode}"]
        write_and_verify(vm, 0, 1)


@pytest.mark.parametrize("driver", DRIVERS)
def test_serial_number_that_is_not_there(machine, driver):
    """Both drivers tell a device that does not know the request from one that fails."""
    vm, device = machine(driver)
    for what, text in (("id-unsupported", "Operation not supported"), ("status-unknown", "")):
        device.misbehave(what)
        output = vm.guest.run(f"cat {SYS}/serial 2>&1", check=False)
        assert device.count(what) >= 1
        assert (output.status != 0, output.text.rpartition(": ")[2]) == (bool(text), text)
        device.behave()
    assert vm.guest(f"cat {SYS}/serial") == "vbw-testdev"


def test_switch_needs_flushes(machine):
    """SET_WCE without FLUSH is not accepted, whatever the device offers."""
    vm, _ = machine(OURS, "--without", "flush")
    features = vm.guest(f"cat {SYS}/device/features")
    assert [features[bit] for bit in (9, 11, 23)] == ["0", "1", "0"]
    assert vm.guest(f"stat -c %a {SYS}/cache_type") == "444"
    write_and_verify(vm, 0, 1)


def test_help_lists_what_it_can_do(env):
    text = subprocess.run([env.testdev, "--help"], capture_output=True, text=True, check=True).stdout
    for word in ("--config-raw", "set-wce", "used-id-range", "zone-stuck"):
        assert word in text
    wrong = subprocess.run([env.testdev, "--socket", "x", "--misbehave", "nonsense"],
                           capture_output=True, text=True, check=False)
    assert wrong.returncode == 1 and "nonsense" in wrong.stderr
