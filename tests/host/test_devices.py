# SPDX-License-Identifier: GPL-2.0
"""Devices that offer less, or something else, than QEMU's default."""

import pytest

from test_errors import write_and_verify
from test_switch import expect, has_set_wce, set_mode
from vbw.guest import GuestError
from vbw.machine import Config

SYS = "/sys/block/vda"


def access(vm):
    """The access mode of cache_type."""
    return vm.guest(f"stat -c %a {SYS}/cache_type")


CONFIG_WCE_ONLY = {
    "stock-qemu": (True, {}),
    "set-wce-off": (False, {"set-wce": False}),
}


@pytest.mark.parametrize("stock, props", CONFIG_WCE_ONLY.values(), ids=CONFIG_WCE_ONLY.keys())
def test_falls_back_to_the_configuration(boot, disk, stock, props):
    vm = boot(Config(stock_qemu=stock, disks=[disk(**props)]))
    assert access(vm) == "644"
    assert not has_set_wce(vm)
    expect(vm, "write back", "none")
    for mode in ("write through", "write through", "write back", "write back"):
        write_and_verify(vm, 0, 5)
        assert set_mode(vm, mode) == "OK"
        expect(vm, mode, f"ok {mode}")


NEITHER = {
    "stock-qemu": (True, {"config-wce": False}),
    "patched-qemu": (False, {"config-wce": False, "set-wce": False}),
}


@pytest.mark.parametrize("stock, props", NEITHER.values(), ids=NEITHER.keys())
@pytest.mark.parametrize("start, mode", [("on", "write back"), ("off", "write through")])
def test_cannot_be_switched(boot, disk, stock, props, start, mode):
    vm = boot(Config(stock_qemu=stock, disks=[disk(**props, **{"write-cache": start})]))
    assert access(vm) == "444"
    expect(vm, mode, "none", write_cache=mode)
    # Root may open a read-only attribute; what it writes must not arrive.
    with pytest.raises(GuestError, match="Permission denied|write error"):
        vm.guest(f"echo 'write through' > {SYS}/cache_type")
    expect(vm, mode, "none", write_cache=mode)
    write_and_verify(vm, 0, 5)


def test_set_wce_without_config_wce(boot, disk):
    vm = boot(Config(disks=[disk(**{"config-wce": False})]))
    assert access(vm) == "644"
    assert has_set_wce(vm)
    for mode in ("write through", "write back"):
        assert set_mode(vm, mode) == "OK"
        expect(vm, mode, f"ok {mode}")


def test_read_only(boot, disk):
    vm = boot(Config(disks=[disk(read_only=True)]))
    assert vm.guest(f"cat {SYS}/ro; blockdev --getro /dev/vda") == "1\n1"
    vm.guest("dd if=/dev/vda of=/dev/null bs=64k count=16 iflag=direct")
    with pytest.raises(GuestError):
        vm.guest("dd if=/dev/zero of=/dev/vda bs=4k count=1 oflag=direct")
    for mode in ("write through", "write back"):
        assert set_mode(vm, mode) == "OK"
        expect(vm, mode, f"ok {mode}")


def test_block_size_4096(boot, disk):
    vm = boot(Config(disks=[disk(logical_block_size=4096, physical_block_size=4096)]))
    queue = vm.guest(f"cd {SYS}/queue; cat logical_block_size physical_block_size ../size")
    assert queue.split() == ["4096", "4096", str(64 * 2048)]
    write_and_verify(vm, 4096, 1)
    assert vm.guest("vbwtool write /dev/vda 512 512 1") == "EINVAL", "smaller than a block"


def test_topology(boot, disk):
    vm = boot(Config(disks=[disk(logical_block_size=512, physical_block_size=4096,
                                 min_io_size=8192, opt_io_size=65536)]))
    queue = vm.guest(f"cd {SYS}/queue; cat logical_block_size physical_block_size "
                     "minimum_io_size optimal_io_size ../alignment_offset")
    assert queue.split() == ["512", "4096", "8192", "65536", "0"]


@pytest.mark.parametrize("size", [64, 256])
def test_segments(boot, disk, size):
    """QEMU derives seg_max from the queue's size: two less, for header and status."""
    vm = boot(Config(disks=[disk(**{"queue-size": size})]))
    assert vm.guest(f"cat {SYS}/queue/max_segments") == str(size - 2)
    write_and_verify(vm, 0, 1)
    vm.guest("dd if=/dev/zero of=/dev/vda bs=4M count=4 oflag=direct")


def test_module_parameters(boot, disk):
    vm = boot(Config(cpus=4, disks=[disk(**{"num-queues": 4})]),
              params="num_request_queues=2 queue_depth=16")
    assert vm.guest(f"ls {SYS}/mq | wc -l; cat {SYS}/mq/0/nr_tags").split() == ["2", "16"]
    write_and_verify(vm, 0, 1)


def test_several_disks(boot, folder):
    """Each disk has a mode of its own."""
    from vbw.machine import Disk, file_node, raw_node
    disks = []
    for number in range(3):
        image = folder / f"disk{number}.img"
        with image.open("wb") as file:
            file.truncate((number + 1) << 20)
        disks.append(Disk(raw_node(file_node(image)), name=f"disk{number}"))
    vm = boot(Config(disks=disks))
    by_size = {int(vm.guest(f"cat /sys/block/{name}/size")) >> 11: name
               for name in ("vda", "vdb", "vdc")}
    assert sorted(by_size) == [1, 2, 3]
    assert set_mode(vm, "write through", f"/sys/block/{by_size[2]}/cache_type") == "OK"
    assert [vm.host_mode(f"disk{number}") for number in range(3)] \
        == ["write back", "write through", "write back"]
