# SPDX-License-Identifier: GPL-2.0
"""Two disks that write to the same image, switched at the same time."""

import pytest

from test_reset import until
from test_switch import set_mode
from vbw import descriptors
from vbw.machine import Config, Disk, file_node, raw_node
from vbw.vm import wait_for_disks

LOAD = ("fio --name=%s --filename=/dev/%s --offset=%dm --size=4m --bs=4k --direct=1 --ioengine=libaio "
        "--iodepth=8 --rw=randwrite --verify=crc32c --verify_fatal=1 --verify_backlog=64 --time_based "
        "--runtime=600 --output=/run/%s.out")
SWITCHES, STOPS = 6, 8
SWITCH = ("n=0; until [ -e /run/enough ] && [ $n -ge %d ]; do for mode in 'write through' 'write back'; do "
          "[ $(vbwtool set /sys/block/%s/cache_type \"$mode\") = OK ] || exit 1; done; n=$((n + 1)); done; echo OK")
IOTHREADS = ["-object", "iothread,id=io0"]


@pytest.fixture
def shared(image):
    """A machine with two disks on one node."""
    def config(props, **more):
        disk = Disk(raw_node(file_node(image)), props={"share-rw": True, "serial": "disk0", **props})
        second = ["-device", "virtio-blk-pci,id=disk1,drive=disk0-node,share-rw=on,disable-legacy=on,serial=disk1"
                             f"{''.join(f',{name}={value}' for name, value in props.items())}"]
        return Config(disks=[disk], extra=second, **more)
    return config


@pytest.mark.parametrize("props, objects", [({}, []), ({"iothread": "io0"}, IOTHREADS)],
                         ids=["main-loop", "iothread"])
def test_at_the_same_time(boot, shared, props, objects):
    """While both are written to, while the machine is stopped and goes on, and while a job starts."""
    vm = boot(shared(props, cpus=2, extra_first=objects))
    vm.guest(wait_for_disks(2))
    disks = ("vda", "vdb")
    loads = [vm.guest.start(LOAD % (disk, disk, 8 * number, disk)) for number, disk in enumerate(disks)]
    switches = [vm.guest.start(SWITCH % (SWITCHES, disk)) for disk in disks]
    vm.qmp("blockdev-add", **{"driver": "null-co", "node-name": "target", "size": 64 << 20})
    for number in range(STOPS):
        assert all(job.running() for job in switches)
        vm.qmp("stop")
        vm.qmp("cont")
        vm.qmp("blockdev-mirror", **{"job-id": f"copy{number}", "device": "disk0-node",
                                     "target": "target", "sync": "none"})
        vm.qmp("block-job-cancel", device=f"copy{number}")
        until(lambda: not vm.qmp("query-jobs"), "the job does not end")
    vm.guest("touch /run/enough")
    assert [job.wait(60).text for job in switches] == ["OK", "OK"]
    for load, disk in zip(loads, disks):
        assert load.running(), load.wait().text
        load.signal("INT")
        load.wait()
        assert "err= 0" in vm.guest(f"cat /run/{disk}.out")
    until(lambda: not descriptors.synchronous(vm), "the image stays open with O_DSYNC")


def test_each_disk_has_its_mode(boot, shared):
    """Though they share the image."""
    vm = boot(shared({}))
    vm.guest(wait_for_disks(2))
    # Which of them gets which name is up to the guest.
    devices = {disk: vm.guest(f"cat /sys/block/{disk}/serial") for disk in ("vda", "vdb")}
    assert set(devices.values()) == {"disk0", "disk1"}
    modes = {"vda": "write back", "vdb": "write back"}
    for disk, mode in (("vda", "write through"), ("vdb", "write through"),
                       ("vda", "write back"), ("vdb", "write back")):
        assert set_mode(vm, mode, f"/sys/block/{disk}/cache_type") == "OK"
        modes[disk] = mode
        assert {disk: vm.host_mode(device) for disk, device in devices.items()} == modes
    until(lambda: not descriptors.synchronous(vm), "the image stays open with O_DSYNC")
