# SPDX-License-Identifier: GPL-2.0
"""The system is written to disk, and goes on in another machine.

Both disks are the driver's: the one that the mode of is looked at, and the one
that the system is written to and read from.
"""

import pytest

from test_flushes import flushes_of
from test_reset import AWAKE, AWAKE_MARK, IDLE, awake, until, wait_for
from test_switch import set_mode
from vbw.machine import Config, Disk, file_node, raw_node

HIBERNATE = f"""{IDLE}
echo shutdown > /sys/power/disk
echo disk > /sys/power/state && {AWAKE}
"""


@pytest.fixture
def machine(boot, folder):
    """Start a machine with disks whose images outlive it."""
    images = [folder / name for name in ("disk0.img", "system.img")]
    for image, mib in zip(images, (64, 1024)):
        with image.open("wb") as file:
            file.truncate(mib << 20)

    def start(driver):
        disks = [Disk(raw_node(file_node(image)), name=image.stem) for image in images]
        # The memory has to have room for itself and for what is read of the one before.
        return boot(Config(disks=disks, serial=True, memory_mb=1024), driver=driver)

    yield start
    for image in images:
        image.unlink()


def test_mode_goes_with_the_system(machine):
    """The new machine's disk is as it was started, write back, until the guest is there again."""
    mode = "write through"
    first = machine("virtio_blk_wce")
    assert set_mode(first, mode) == "OK"
    assert first.guest("vbwtool write /dev/vda 0 65536 1") == "OK"
    first.guest("mkswap /dev/vdb > /dev/null && swapon /dev/vdb")
    first.guest.start(HIBERNATE)
    until(lambda: first.process.poll() is not None, "the guest does not switch off")
    first.kill()

    second = machine(None)
    assert second.host_mode() == "write back"
    assert not awake(second)
    second.load()
    second.guest.start(f"{IDLE}\ncat /sys/block/vdb/dev > /sys/power/resume")
    until(lambda: awake(second), f"the guest does not come back: no '{AWAKE_MARK}'")
    second.guest.resync()

    wait_for(second, mode, f"ok {mode}")
    assert second.guest("vbwtool verify /dev/vda 0 65536 1") == "OK"
    command = "vbwtool write /dev/vda 0 4096 1 && vbwtool fsync /dev/vda"
    assert flushes_of(second, command) == 0
