# SPDX-License-Identifier: GPL-2.0
"""Requests by the batch, and requests that are polled for."""

import re

import pytest

from test_switch import expect, set_mode
from vbw.machine import Config
from vbw.vm import OURS, STOCK

SYS = "/sys/block/vda"


def fio(name, *options):
    """The command line of a job that does 4 KiB I/O at random places."""
    return " ".join([f"fio --name={name} --filename=/dev/vda --size=8m --bs=4k --direct=1",
                     "--norandommap --output=/run/fio.out", *options])


def interrupts(vm):
    """How many interrupts the disk's queues have had, and the names of those that have any."""
    lines = vm.guest("grep -E 'virtio[0-9]+-req' /proc/interrupts").splitlines()
    names = [line.split()[-1] for line in lines]
    counts = [int(word) for line in lines for word in line.split()[1:] if word.isdigit()]
    return sum(counts), names


def test_polled(boot, disk):
    """Two queues of four have no interrupts, and polled I/O uses those."""
    vm = boot(Config(cpus=4, disks=[disk(**{"num-queues": 4})]), params="poll_queues=2")
    assert "2/0/2 default/read/poll queues" in vm.guest("dmesg")
    assert vm.guest("cat /sys/kernel/debug/block/vda/hctx*/type").split() \
        == ["default", "default", "poll", "poll"]
    before, names = interrupts(vm)
    assert [name.split("-")[1] for name in names] == ["req.0", "req.1"]

    job = fio("polled", "--ioengine=io_uring --hipri=1 --rw=randread --iodepth=8 --number_ios=2000")
    assert "err= 0" in vm.guest(f"{job} && cat /run/fio.out")
    assert interrupts(vm)[0] - before < 100, "the 2,000 requests have interrupted"
    job = fio("interrupting", "--ioengine=io_uring --rw=randread --iodepth=1 --number_ios=500")
    vm.guest(job)
    assert interrupts(vm)[0] - before >= 500


def test_polled_under_switches(boot, disk):
    vm = boot(Config(cpus=2, disks=[disk(**{"num-queues": 2})]), params="poll_queues=1")
    load = vm.guest.start(
        "fio --name=load --filename=/dev/vda --size=4m --rw=randwrite --bsrange=4k-64k --direct=1 "
        "--ioengine=io_uring --hipri=1 --iodepth=16 --verify=crc32c --verify_fatal=1 --loops=4 "
        "--output=/run/fio.out")
    for mode in ("write through", "write back", "write through"):
        assert set_mode(vm, mode) == "OK"
        expect(vm, mode, f"ok {mode}")
    assert load.wait(120).status == 0
    assert "err= 0" in vm.guest("cat /run/fio.out")


@pytest.mark.parametrize("queues, poll, found", [(2, 9, "1/0/1"), (1, 1, "1/0/0"), (2, 0, "2/0/0")])
def test_one_queue_is_not_polled(boot, disk, queues, poll, found):
    vm = boot(Config(disks=[disk(**{"num-queues": queues})]), params=f"poll_queues={poll}")
    assert f"{found} default/read/poll queues" in vm.guest("dmesg")
    vm.guest(fio("any", "--ioengine=io_uring --rw=randread --number_ios=10"))


@pytest.mark.parametrize("driver", [OURS, STOCK])
def test_one_kick_for_a_batch(boot, disk, driver):
    """Sixteen requests that are submitted together are one notification of the device."""
    vm = boot(Config(disks=[disk(ioeventfd=False)], extra=["-trace", "virtio_queue_notify"],
                     serial=True), driver=driver)

    def kicks():
        return len(re.findall("^virtio_queue_notify ", (vm.folder / "qemu.log").read_text(), re.M))

    before = kicks(), vm.host_stats()["rd_operations"]
    vm.guest(fio("batches", "--ioengine=libaio --rw=randread --iodepth=16 --number_ios=1600",
                 "--iodepth_batch_submit=16 --iodepth_batch_complete_min=16"))
    requests = vm.host_stats()["rd_operations"] - before[1]
    assert requests >= 1500, "the requests have been merged"
    assert kicks() - before[0] < requests / 8


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
def test_batches_that_do_not_fit(boot, disk, packed):
    """More descriptors in a batch than in the ring: what is left over goes later."""
    vm = boot(Config(disks=[disk(**{"queue-size": 32}, indirect_desc=False, packed=packed)]))
    job = ("fio --name=wide --filename=/dev/vda --size=8m --rw=randwrite --bsrange=4k-64k --direct=1 "
           "--ioengine=libaio --iodepth=64 --iodepth_batch_submit=64 --verify=crc32c --verify_fatal=1 "
           "--loops=2 --output=/run/fio.out")
    assert "err= 0" in vm.guest(f"{job} && cat /run/fio.out")
