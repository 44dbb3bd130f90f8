# SPDX-License-Identifier: GPL-2.0
"""A disk that is an export of QEMU's storage daemon, and so in another process than its device."""

import json
import subprocess
import tempfile
from pathlib import Path

import pytest

from test_errors import write_and_verify
from test_migration import MACHINE, Journey
from test_reset import until
from test_switch import MODES, guest_view, has_set_wce, set_mode
from vbw import descriptors
from vbw.machine import file_node, flush_fails_node, raw_node
from vbw.scenarios import vbwtool_pattern
from vbw.testdev import machine_with
from vbw.vm import wait_for_disks

FIO = ("fio --name=load --filename=/dev/vda --size=4m --bs=4k --direct=1 --ioengine=libaio --iodepth=32 "
       "--rw=randwrite --verify=crc32c --verify_fatal=1 --verify_backlog=256 --time_based --runtime=600 "
       "--output=/run/fio.out")


class StorageDaemon:
    """The daemon with one export, for one machine."""

    def __init__(self, folder, sockets, binary, node, queues, options):
        self.folder = folder
        self.socket = sockets / "export.sock"
        self.queues = queues
        self.options = {"type": "vhost-user-blk", "id": "export", "node-name": "node", "writable": True,
                        "num-queues": queues, "addr": {"type": "unix", "path": str(self.socket)}, **options}
        self.command = [str(binary), "--blockdev", json.dumps({**node, "node-name": "node"})]
        self.process = None

    def start(self):
        """Start it, or start it again."""
        self.socket.unlink(missing_ok=True)
        with (self.folder / "daemon.log").open("ab") as log:
            export = ["--export", json.dumps(self.options)]
            self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *self.command, *export],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(lambda: self.socket.exists() or self.process.poll() is not None, "the daemon does not start")
        assert self.process.poll() is None, (self.folder / "daemon.log").read_text()

    def end(self):
        """End it, also when it does not want to."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def arguments(self):
        """QEMU's arguments for the device."""
        return ["-chardev", f"socket,id=export,path={self.socket},reconnect-ms=50",
                "-device", f"vhost-user-blk-pci,id=disk0,chardev=export,num-queues={self.queues}"]

    def synchronous(self):
        """Descriptors of the image with O_DSYNC."""
        return descriptors.synchronous(self.process.pid)


@pytest.fixture
def export(env, folder):
    """Start a daemon on a node; it ends after the test's machines."""
    daemons = []
    # Not in the test's folder: the name of a socket can't be that long.
    with tempfile.TemporaryDirectory(prefix="vbw-") as sockets:

        def start(node, queues=1, stock=False):
            binary = (env.qemu_stock if stock else env.qemu) / "qemu-storage-daemon"
            options = {} if stock else {"set-wce": True}
            daemons.append(StorageDaemon(folder, Path(sockets), binary, node, queues, options))
            daemons[-1].start()
            return daemons[-1]

        yield start
        for daemon in daemons:
            daemon.end()


def started(boot, daemon, **more):
    """A machine with the daemon's disk."""
    vm = boot(machine_with(daemon, **more))
    vm.guest(wait_for_disks(1))
    return vm


def expect(vm, daemon, mode, status):
    """Guest and daemon agree on the mode."""
    assert guest_view(vm) == [mode, "write back", status]
    if mode == "write back":
        until(lambda: not daemon.synchronous(), "the daemon still has a descriptor with O_DSYNC")


def expect_dsync(vm, daemon):
    """In write through, a write that is alone gets a descriptor with O_DSYNC, which may take a moment."""

    def written():
        write_and_verify(vm, 65536, 1)
        return daemon.synchronous()

    until(written, "the daemon opens nothing with O_DSYNC")


def test_switches_under_load(boot, export, image):
    daemon = export(raw_node(file_node(image)), queues=2)
    vm = started(boot, daemon)
    assert has_set_wce(vm)
    expect(vm, daemon, "write back", "none")
    files = len(descriptors.images(daemon.process.pid))
    load = vm.guest.start(FIO)
    for mode in MODES * 4:
        assert set_mode(vm, mode) == "OK"
        expect(vm, daemon, mode, f"ok {mode}")
        assert load.running(), load.wait().text
    until(lambda: len(descriptors.images(daemon.process.pid)) == files, "the daemon has other descriptors than before")
    load.signal("INT")
    load.wait()
    report = vm.guest("cat /run/fio.out")
    assert "err= 0" in report, report


def test_flush_fails(boot, export, image):
    daemon = export(flush_fails_node(image, once=False))
    vm = started(boot, daemon)
    for seed in range(2):
        # Without a write QEMU knows that there is nothing to flush.
        write_and_verify(vm, 65536, seed)
        assert set_mode(vm, "write through") == "EIO"
        expect(vm, daemon, "write back", "error write through EIO")
    assert set_mode(vm, "write back") == "OK"
    expect(vm, daemon, "write back", "ok write back")


def test_image_is_deleted(boot, export, image):
    daemon = export(raw_node(file_node(image)))
    vm = started(boot, daemon)
    inode = image.stat().st_ino
    image.unlink()
    for mode in MODES:
        assert set_mode(vm, mode) == "OK"
        expect(vm, daemon, mode, f"ok {mode}")
        if mode == "write through":
            expect_dsync(vm, daemon)
        assert {number for number, _ in descriptors.images(daemon.process.pid).values()} == {inode}
    write_and_verify(vm, 65536, 1)


def test_connection_is_lost(boot, export, image):
    """The new daemon does not know which mode the guest goes by, so it gets the one that is always safe."""
    daemon = export(raw_node(file_node(image)))
    vm = started(boot, daemon)
    for mode in ("write back", "write through"):
        assert set_mode(vm, mode) == "OK"
        daemon.end()
        daemon.start()
        assert vm.guest("vbwtool wait /sys/block/vda/cache_type 'write through' 10") == "OK"
        expect_dsync(vm, daemon)
        assert guest_view(vm)[:2] == ["write through", "write back"]


@pytest.mark.parametrize("starts", MODES)
def test_migration(boot, export, image, folder, starts):
    """The daemon at the other end knows nothing of the mode. The machine that arrives tells it."""
    daemon = export(raw_node(file_node(image)))
    vm = started(boot, daemon, machine=MACHINE)
    assert has_set_wce(vm)
    journey = Journey(boot, folder / "state")
    for seed, mode in enumerate(MODES, 1):
        assert set_mode(vm, mode) == "OK"
        assert vm.guest(f"vbwtool write /dev/vda 0 65536 {seed}") == "OK"
        journey.send(vm)
        daemon.end()
        daemon.options["writethrough"] = starts == "write through"
        daemon.start()
        vm = journey.receive(machine_with(daemon, machine=MACHINE))
        assert guest_view(vm) == [mode, "write back", f"ok {mode}"]
        assert vm.guest(f"vbwtool verify /dev/vda 0 65536 {seed}") == "OK"
        if mode == "write through":
            expect_dsync(vm, daemon)
        else:
            expect(vm, daemon, mode, f"ok {mode}")
    (folder / "state").unlink()


# One write each, all at a time.
WRITES, SIZE, APART = 32, 4096, 65536
DSYNC = (f"for n in $(seq {WRITES}); do vbwtool dsync /dev/vda $((n * {APART})) {SIZE} $((%d + n)) & done; "
         "wait")


def on_storage(image, first):
    """How many of the writes are there."""
    with image.open("rb") as file:
        return sum(file.seek(n * APART) > 0 and file.read(SIZE) == vbwtool_pattern(SIZE, first + n)
                   for n in range(1, WRITES + 1))


def test_requests_in_flight(boot, export, image, nbd):
    """The daemon has them while it waits for its storage, and dies; the next one does them."""
    nbd.start()
    daemon = export(raw_node(nbd.node))
    vm = started(boot, daemon)
    for first, mode in ((100, "write through"), (200, "write back"), (300, "write through")):
        before = guest_view(vm)[0]
        nbd.kill()
        writes = vm.guest.start(DSYNC % first)
        until(lambda: sum(map(int, vm.guest("cat /sys/block/vda/inflight").split())) == WRITES,
              "the writes are not in flight")
        switch = vm.guest.start(f"vbwtool set /sys/block/vda/cache_type '{mode}'")
        if mode == "write through":
            # It needs a flush.
            assert vm.guest("vbwtool wait /sys/block/vda/cache_type_status 'pending write through' 10") == "OK"
        daemon.end()
        assert writes.running() and guest_view(vm)[0] in (before, mode)
        nbd.start()
        assert on_storage(image, first) == 0
        daemon.start()
        assert writes.wait(60).text.split() == ["OK"] * WRITES
        # A switch to write back is done at once, and undone when the daemon dies, or done again by the next one.
        assert switch.wait(60).text == "OK"
        assert guest_view(vm)[0] in (mode, "write through")
        assert on_storage(image, first) == WRITES
        assert set_mode(vm, mode) == "OK"
        expect(vm, daemon, mode, f"ok {mode}")


@pytest.mark.parametrize("stock_qemu", [False, True], ids=["patched", "stock"])
def test_stock_daemon(boot, export, image, stock_qemu):
    """It does not know the request, so the driver writes to the configuration space."""
    daemon = export(raw_node(file_node(image)), stock=True)
    vm = started(boot, daemon, stock_qemu=stock_qemu)
    assert not has_set_wce(vm)
    for mode in MODES * 2:
        assert set_mode(vm, mode) == "OK"
        assert guest_view(vm) == [mode, "write back", f"ok {mode}"]
        write_and_verify(vm, 65536, 1)
