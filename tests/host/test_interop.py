# SPDX-License-Identifier: GPL-2.0
"""A device that was made from the text of the specification alone, and both drivers.

Whether it, and the driver with it, keep what they promise is for the judge to say (tests/prove, "interop").
"""

import subprocess
import tempfile
from pathlib import Path

import pytest

from test_switch import set_mode
from vbw.machine import Config
from vbw.vm import OURS, STOCK, wait_for_disks

SYS = "/sys/block/vda"
SET_WCE = 23
# QEMU's device that hands everything on, and the one for disks.
GENERIC = "vhost-user-device-pci,virtio-id=2,num_vqs=2,vq_size=1024,config_size=96"
FOR_DISKS = "vhost-user-blk-pci,num-queues=2"


@pytest.fixture
def specdev(env, folder, image, boot):
    """Start such a device with options, and a machine that has it."""
    devices = []
    with tempfile.TemporaryDirectory(prefix="vbw-") as sockets:

        def start(*options, driver=OURS, frontend=GENERIC):
            socket = Path(sockets) / "specdev"
            with (folder / "specdev.log").open("wb") as log:
                devices.append(subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", Path(env.testdev).with_name("vbw-specdev"), "--socket", socket,
                     "--image", image, "--queues", "2", *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log))
            vm = boot(Config(memory_mb=512, extra=[
                "-object", "memory-backend-memfd,id=memory,size=512M,share=on", "-machine", "memory-backend=memory",
                "-chardev", f"socket,id=socket,path={socket}", "-device", f"{frontend},id=disk0,chardev=socket"]),
                driver=driver)
            vm.guest(wait_for_disks(1))
            return vm

        yield start
        for device in devices:
            device.kill()
            device.wait()


def features(vm):
    """What was negotiated, bit by bit."""
    return vm.guest(f"cat {SYS}/device/features").strip()


def write_and_verify(vm):
    """Data comes back."""
    assert vm.guest("vbwtool write /dev/vda 65536 65536 1 && vbwtool verify /dev/vda 65536 65536 1") == "OK\nOK"


@pytest.mark.parametrize("options, first", [([], "write back"), (["--write-through"], "write through")],
                         ids=["write-back", "write-through"])
@pytest.mark.parametrize("frontend", [GENERIC, FOR_DISKS], ids=["generic", "vhost-user-blk"])
def test_switched_both_ways(specdev, options, first, frontend):
    """From the mode that it starts with, which it has again when it is reset, if it is told of that."""
    vm = specdev(*options, frontend=frontend)
    assert features(vm)[SET_WCE] == "1"
    assert vm.guest(f"cat {SYS}/cache_type") == first
    for mode in ("write through", "write back", "write back", "write through", "write through"):
        assert set_mode(vm, mode) == "OK"
        assert vm.guest(f"cat {SYS}/cache_type") == mode
        assert vm.guest(f"cat {SYS}/cache_type_status") == f"ok {mode}"
        write_and_verify(vm)
    vm.guest(f"rmmod {OURS}; insmod /vbw/{OURS}.ko; {wait_for_disks(1)}")
    assert vm.guest(f"cat {SYS}/cache_type") == (first if frontend == FOR_DISKS else mode)
    write_and_verify(vm)


def test_read_only(specdev):
    """A disk that cannot be written has a mode none the less."""
    vm = specdev("--read-only")
    assert vm.guest(f"cat {SYS}/ro") == "1"
    assert set_mode(vm, "write through") == "OK"
    assert vm.guest(f"cat {SYS}/cache_type") == "write through"


def test_with_the_driver_that_configures(specdev):
    """virtio_blk does not know the feature, and uses the older one."""
    vm = specdev(driver=STOCK)
    assert features(vm)[SET_WCE] == "0"
    for mode in ("write through", "write back"):
        assert set_mode(vm, mode) == "OK"
        assert vm.guest(f"cat {SYS}/cache_type") == mode
        write_and_verify(vm)
