# SPDX-License-Identifier: GPL-2.0
"""A device that takes its time, or never answers: only the writer waits.

blkdebug stops the image's flush until the host lets it go on, so a switch to
write through is pending for exactly as long as a test wants.
"""

import pytest

from test_errors import write_and_verify
from test_switch import expect, guest_view, set_mode
from vbw.machine import Config, Disk, file_node, raw_node

STATUS = "/sys/block/vda/cache_type_status"
DISK = "/machine/peripheral/disk0/virtio-backend"


def hmp(vm, command):
    """A command of qemu-io on the disk's backend."""
    answer = vm.qmp("human-monitor-command", **{"command-line": f'qemu-io -d {DISK} "{command}"'})
    assert not answer.strip(), answer


@pytest.fixture
def stopped(boot, image):
    """A machine whose next flush stops, and a writer that waits for it."""
    node = raw_node({"driver": "blkdebug", "image": file_node(image)})
    vm = boot(Config(disks=[Disk(node, props={"num-queues": 2})]))
    hmp(vm, "break flush_to_os stop")
    writer = vm.guest.start("vbwtool set /sys/block/vda/cache_type 'write through'")
    return vm, writer


def wait_for_pending(vm, mode):
    """Wait until the switch to a mode is pending."""
    assert vm.guest(f"vbwtool wait {STATUS} 'pending {mode}' 10") == "OK"


def go_on(vm):
    """Let the flush go on, and later ones pass."""
    hmp(vm, "remove_break stop")


def test_only_the_writer_waits(stopped):
    vm, writer = stopped
    wait_for_pending(vm, "write through")
    expect(vm, "write back", "pending write through")
    write_and_verify(vm, 0, 1)
    assert writer.running()
    assert guest_view(vm)[0] == "write back", "reading does not wait for the switch"
    go_on(vm)
    assert writer.wait(10).text == "OK"
    expect(vm, "write through", "ok write through")
    write_and_verify(vm, 65536, 2)


def test_second_writer_waits_for_the_first(stopped):
    vm, first = stopped
    wait_for_pending(vm, "write through")
    second = vm.guest.start("vbwtool set /sys/block/vda/cache_type 'write back'")
    wait_for_pending(vm, "write back")
    assert first.running() and second.running()
    go_on(vm)
    assert first.wait(10).text == "OK"
    assert second.wait(10).text == "OK"
    expect(vm, "write back", "ok write back")


def test_signal_frees_the_writer(stopped):
    """EINTR; the request goes on in the background."""
    vm, writer = stopped
    wait_for_pending(vm, "write through")
    interrupted = vm.guest("vbwtool set /sys/block/vda/cache_type 'write back' 1")
    assert interrupted == "EINTR"
    writer.signal("KILL")
    vm.guest.until("! pidof vbwtool")
    expect(vm, "write back", "pending write back")
    write_and_verify(vm, 0, 1)
    go_on(vm)
    assert vm.guest(f"vbwtool wait {STATUS} 'ok write back' 10") == "OK"
    expect(vm, "write back", "ok write back")
    assert set_mode(vm, "write through") == "OK"
    expect(vm, "write through", "ok write through")


def test_unbind_frees_the_writers(boot, disk, folder):
    """ENODEV for all who wait, when the device is taken from the driver.

    The device cannot be reset while it flushes, so this flush is a slow one: strace
    delays it.
    """
    delay = 4
    tracer = ["strace", "-f", "-o", str(folder / "strace"), "--seccomp-bpf",
              "-e", "trace=fdatasync", "-e", f"inject=fdatasync:delay_enter={delay}s:when=1..2"]
    vm = boot(Config(disks=[disk()], wrapper=tracer))
    write_and_verify(vm, 0, 2)
    writers = [vm.guest.start(f"vbwtool set /sys/block/vda/cache_type '{mode}'")
               for mode in ("write through", "write back")]
    wait_for_pending(vm, "write back")
    vm.guest("cd /sys/block/vda/device/driver && basename $(readlink -f /sys/block/vda/device) > unbind")
    answers = [writer.wait(30).text for writer in writers]
    assert answers == ["ENODEV", "ENODEV"]
    vm.guest("[ ! -e /sys/block/vda ] && [ ! -e /dev/vda ]")
    vm.guest("cd /sys/bus/virtio/drivers/virtio_blk_wce && for d in ../../devices/virtio*; do "
             "[ $(cat $d/device) != 0x0002 ] || basename $d > bind; done")
    vm.guest.until("[ -b /dev/vda ]")
    expect(vm, "write back", "none")
    write_and_verify(vm, 0, 1)
