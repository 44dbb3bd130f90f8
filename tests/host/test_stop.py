# SPDX-License-Identifier: GPL-2.0
"""A machine that is stopped and goes on, again and again, under load.

The requests of a disk in an iothread complete there while the main loop waits for the last of them, so
an interrupt can be on its way when the disk stops. Without it the guest would wait for ever for requests
that are done: the device of QEMU 10.0 loses one in about a hundred times.
"""

import pytest

from test_reset import until
from vbw.machine import Config, Disk, file_node, raw_node
from vbw.vm import wait_for_disks

IOTHREADS = ["-object", "iothread,id=io0", "-object", "iothread,id=io1"]
MAPPING = [{"iothread": "io0"}, {"iothread": "io1"}]
# Few enough for all to complete at once, so that nothing makes up for an interrupt that is lost.
LOAD = ("fio --name=vda --filename=/dev/vda --size=4m --bs=4k --direct=1 --ioengine=libaio --iodepth=8 "
        "--rw=randwrite --verify=crc32c --verify_fatal=1 --verify_backlog=64 --time_based --runtime=600 "
        "--output=/run/load.out")


def completed(vm):
    """The number of writes of vda that have completed."""
    return int(vm.guest("cat /sys/block/vda/stat").split()[4])


@pytest.mark.parametrize("props", [{"iothread": "io0"}, {"iothread-vq-mapping": MAPPING}],
                         ids=["one-iothread", "two-iothreads"])
def test_no_interrupt_is_lost(boot, image, props):
    vm = boot(Config(disks=[Disk(raw_node(file_node(image)), props=props)], cpus=2, extra_first=IOTHREADS))
    vm.guest(wait_for_disks(1))
    load = vm.guest.start(LOAD)
    for _ in range(50):
        before = completed(vm)
        for _ in range(20):
            vm.qmp("stop")
            vm.qmp("cont")
        until(lambda: completed(vm) > before, "the disk does not go on")
    assert load.running(), load.wait().text
    load.signal("INT")
    load.wait()
    assert "err= 0" in vm.guest("cat /run/load.out")
