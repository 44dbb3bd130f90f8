# SPDX-License-Identifier: GPL-2.0
"""Ways for a switch to fail, and ways to damage the backend or to disturb it meanwhile.

All of them happen while fio writes and verifies with 32 requests in flight. Whatever becomes
of the switch, none of these requests fails, and what is read is what was written. A switch
that fails leaves the mode and QEMU's file descriptors as they were, and the guest is told. It fails only if
what was written cannot be flushed, and not for any reason that the image could not be opened again for.
"""

import os
import resource
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from qemu.qmp import ExecuteError

from test_host_switch import host_sets
from test_reset import until
from test_switch import expect, guest_view, set_mode
from vbw import descriptors
from vbw.env import has_other_users
from vbw.machine import Config, Disk, file_node, flush_fails_node, raw_node
from vbw.scenarios import vbwtool_pattern

MIB = 1 << 20
STATUS = "/sys/block/vda/cache_type_status"
FIO = ("fio --name=load --filename=/dev/vda --size=4m --bs=4k --direct=1 --ioengine=libaio "
       "--iodepth=32 --time_based --runtime=600 --output=/run/fio.out ")
VERIFYING = FIO + "--rw=randwrite --verify=crc32c --verify_fatal=1 --verify_backlog=256"
RESULTS = "switch-faults.tsv"


class Ordeal:
    """A disk under load, and attempts to switch it. Ends with the count of what went wrong."""

    def __init__(self, vm, way, load=VERIFYING):
        self.vm = vm
        self.way = way
        self.command = load
        self.answers = []

    def __enter__(self):
        self.before = sum(self.count())
        self.load = self.vm.guest.start(self.command)
        self.goes_on()
        return self

    def __exit__(self, kind, value, trace):
        if kind:
            return
        assert self.load.running(), self.load.wait().text
        self.goes_on()
        self.load.signal("INT")
        self.load.wait()
        report = self.vm.guest("cat /run/fio.out")
        assert "err= 0" in report, report
        stats = self.vm.host_stats()
        failed = stats["failed_rd_operations"] + stats["failed_wr_operations"]
        assert failed == 0, stats
        with (self.vm.env.out / RESULTS).open("a") as file:
            file.write("\t".join((self.way, ", ".join(self.answers), str(sum(self.count()) - self.before),
                                  str(failed), "0", self.vm.host_mode())) + "\n")

    def count(self):
        """The reads and the writes that the guest has seen completed."""
        fields = self.vm.guest("cat /sys/block/vda/stat").split()
        return int(fields[0]), int(fields[4])

    def goes_on(self, more=128):
        """Wait until that many more requests have been completed."""
        self.vm.guest(
            "set -- $(cat /sys/block/vda/stat); want=$(($1 + $5 + %d)); n=0; "
            "while set -- $(cat /sys/block/vda/stat); [ $(($1 + $5)) -lt $want ]; do "
            "n=$((n + 1)); [ $n -lt 600 ] || exit 1; usleep 50000; done" % more)

    def agrees(self, mode):
        """QEMU, too, is in that mode, and no descriptor of another one stays."""
        assert self.vm.host_mode() == mode
        if mode == "write back":
            until(lambda: not descriptors.synchronous(self.vm), "an image stays open with O_DSYNC")

    def works(self, *modes):
        """Switches that have to succeed, one after the other."""
        for mode in modes:
            self.answers.append(set_mode(self.vm, mode))
            assert self.answers[-1] == "OK"
            expect(self.vm, mode, f"ok {mode}")
            self.agrees(mode)
            self.goes_on()

    def fails(self, mode="write through", error="EIO"):
        """A switch that has to fail, and to change nothing."""
        before, files = self.vm.host_mode(), descriptors.images(self.vm)
        self.answers.append(set_mode(self.vm, mode))
        assert self.answers[-1] == error
        expect(self.vm, before, f"error {mode} {error}")
        assert descriptors.images(self.vm) == files
        self.agrees(before)
        self.goes_on()

    def started(self, mode):
        """A switch in the background; returns when the device has to have got it."""
        job = self.vm.guest.start(f"vbwtool set /sys/block/vda/cache_type '{mode}'")
        assert self.vm.guest(f"vbwtool wait {STATUS} 'pending {mode}' 10") == "OK"
        return job

    def answered(self, job, mode):
        """The answer to the last of what a job has asked for: success."""
        self.answers.append(job.wait(30).text)
        assert self.answers[-1] == "OK"
        expect(self.vm, mode, f"ok {mode}")
        self.goes_on()


def blkdebug(image, *errors, states=(), **more):
    """An image that blkdebug stands before."""
    # It takes no empty list.
    rules = {"inject-error": list(errors), "set-state": list(states)}
    return {"driver": "blkdebug", "image": file_node(image), **more,
            **{name: value for name, value in rules.items() if value}}


FLUSH_ERROR = {"event": "none", "iotype": "flush", "errno": 5}
SLOW_FLUSH = {**FLUSH_ERROR, "errno": 0, "delay-ns": 1_000_000_000, "once": True}
AFTER_FLUSH = {"event": "flush_to_disk", "state": 1, "new_state": 2}


# The flush fails


def test_flush_fails_once(boot, image):
    vm = boot(Config(disks=[Disk(flush_fails_node(image))]))
    with Ordeal(vm, "the flush fails once") as ordeal:
        ordeal.fails()
        ordeal.works("write through", "write back")


def test_flush_fails_always(boot, image):
    vm = boot(Config(disks=[Disk(flush_fails_node(image, once=False))]))
    with Ordeal(vm, "every flush fails") as ordeal:
        for _ in range(3):
            ordeal.fails()
        ordeal.works("write back")


def test_second_flush_fails(boot, image):
    """The one for what was written during the first, which is slow."""
    error = {"event": "flush_to_disk", "iotype": "flush", "errno": 5, "state": 2, "once": True}
    vm = boot(Config(disks=[Disk(raw_node(blkdebug(image, SLOW_FLUSH, error, states=[AFTER_FLUSH])))]))
    with Ordeal(vm, "the second flush fails") as ordeal:
        ordeal.fails()
        ordeal.works("write through", "write back")


def test_file_cannot_be_synced(boot, disk, folder):
    """After an fdatasync() that failed nobody knows what is on the disk, so none succeeds again."""
    tracer = ["strace", "-f", "-o", str(folder / "strace"), "--seccomp-bpf", "-e", "trace=fdatasync",
              "-e", "inject=fdatasync:error=EIO:when=1"]
    vm = boot(Config(disks=[disk()], wrapper=tracer))
    with Ordeal(vm, "fdatasync fails once on the host") as ordeal:
        ordeal.fails()
        ordeal.fails()
        ordeal.works("write back")


@pytest.mark.parametrize("threads", [1, 2])
def test_flush_fails_in_iothreads(boot, image, threads):
    names = [f"io{number}" for number in range(threads)]
    props = {"num-queues": 4, "iothread-vq-mapping": [{"iothread": name} for name in names]}
    objects = [word for name in names for word in ("-object", f"iothread,id={name}")]
    vm = boot(Config(cpus=4, extra_first=objects,
                     disks=[Disk(flush_fails_node(image, once=False), props=props)]))
    with Ordeal(vm, f"every flush fails, 4 queues in {threads} iothreads") as ordeal:
        for _ in range(3):
            ordeal.fails()
        ordeal.works("write back")


def test_flush_fails_under_throttle(boot, image):
    node = {"driver": "throttle", "throttle-group": "slow",
            "file": raw_node(blkdebug(image, {**FLUSH_ERROR, "once": True}))}
    vm = boot(Config(disks=[Disk(node)],
                     extra_first=["-object", "throttle-group,id=slow,x-iops-total=300"]))
    with Ordeal(vm, "the flush fails once below a throttle filter of 300 requests/s") as ordeal:
        ordeal.fails()
        ordeal.works("write through", "write back")


def test_quorum(boot, folder):
    """Two of three have to flush: at first only one does, later one does not."""
    errors = [[], [FLUSH_ERROR], [{**FLUSH_ERROR, "once": True}]]
    children = []
    for number, rules in enumerate(errors):
        image = folder / f"child{number}.img"
        with image.open("wb") as file:
            file.truncate(64 * MIB)
        children.append(raw_node(blkdebug(image, *rules)))
    vm = boot(Config(disks=[Disk({"driver": "quorum", "vote-threshold": 2, "children": children})]))
    with Ordeal(vm, "two of a quorum of three fail to flush, then one") as ordeal:
        ordeal.fails()
        ordeal.works("write through", "write back")


def test_flush_fails_under_luks(boot, env, folder):
    """What is written is encrypted, and what is read back decrypted."""
    image = folder / "disk.img"
    secret = "secret,id=key,data=not very"
    subprocess.run([env.qemu / "qemu-img", "create", "-q", "-f", "luks", "--object", secret, "-o",
                    "key-secret=key,iter-time=10", image, "64M"], check=True)
    node = {"driver": "luks", "key-secret": "key", "file": blkdebug(image, {**FLUSH_ERROR, "once": True})}
    vm = boot(Config(disks=[Disk(node)], extra_first=["-object", secret]))
    with Ordeal(vm, "LUKS: the flush fails once") as ordeal:
        ordeal.fails()
        ordeal.works("write through", "write back")


def test_host_s_switch_fails(boot, image):
    """The guest is as before; nobody told it anything."""
    vm = boot(Config(disks=[Disk(flush_fails_node(image, once=False))]))
    with Ordeal(vm, "every flush fails, for the host's switch") as ordeal:
        ordeal.fails()
        view, files = guest_view(vm), descriptors.images(vm)
        for _ in range(3):
            with pytest.raises(ExecuteError, match="write through"):
                host_sets(vm, "write through")
            assert guest_view(vm) == view
            assert descriptors.images(vm) == files
            ordeal.goes_on()


# The backend is damaged


def test_names_of_the_image(boot, folder):
    """The image is renamed, another file gets its name, it is deleted, and its folder goes."""
    place = folder / "place"
    place.mkdir()
    image, other, moved = (place / name for name in ("disk.img", "other.img", "moved.img"))
    for path in (image, other):
        with path.open("wb") as file:
            file.truncate(64 * MIB)
    vm = boot(Config(disks=[Disk(raw_node(file_node(image)))]))
    inode = image.stat().st_ino

    def check(way):
        with Ordeal(vm, way) as ordeal:
            ordeal.works("write through", "write back")
        assert {number for number, _ in descriptors.images(vm).values()} == {inode}

    image.rename(moved)
    check("the image is renamed")
    other.rename(image)
    check("another file has the image's name")
    content = image.read_bytes()
    assert content == bytes(len(content)), "something was written to the other file"
    moved.unlink()
    check("the image is deleted")
    shutil.rmtree(place)
    check("the image's folder is removed")


# The image cannot be opened again, which no switch depends on


def test_permission_is_gone(boot, disk, image):
    """QEMU may not open its image again, as it could not as an ordinary user."""
    powers = "-dac_override,-dac_read_search"
    vm = boot(Config(disks=[disk()], wrapper=["setpriv", "--inh-caps", powers, "--bounding-set", powers]))
    with Ordeal(vm, "the image's permissions are gone, are back, and are gone again") as ordeal:
        for mode in (0, 0o600, 0):
            image.chmod(mode)
            ordeal.works("write through", "write back")


@pytest.mark.skipif(not has_other_users(), reason="QEMU cannot become another user here")
@pytest.mark.parametrize("props", [{}, {"set-wce": False}], ids=["set-wce", "config-wce"])
def test_unprivileged(boot, disk, image, props):
    """QEMU has become another user, whom the image does not belong to."""
    vm = boot(Config(disks=[disk(**props)], extra=["-run-with", "user=65534:65534"]))
    image.chmod(0o400)
    with Ordeal(vm, f"QEMU is a user who may not open the image {props}") as ordeal:
        ordeal.works("write through", "write back", "write through")


def test_deleted_without_proc(boot, disk, image, folder):
    """There is neither /proc nor a name, or a name that is another file's."""
    inside = folder / "root"
    place = inside / image.relative_to("/")
    place.parent.mkdir(parents=True)
    os.link(image, place)
    vm = boot(Config(disks=[disk()], extra=["-run-with", f"chroot={inside}"]))
    with Ordeal(vm, "no /proc; the image is there, is deleted, is another, is there again") as ordeal:
        ordeal.works("write through", "write back")
        place.unlink()
        ordeal.works("write through", "write back")
        with place.open("wb") as file:
            file.truncate(64 * MIB)
        ordeal.works("write through", "write back")
        content = place.read_bytes()
        assert content == bytes(len(content)), "something was written to the other file"
        place.unlink()
        os.link(image, place)
        ordeal.works("write through", "write back")


class Limit:
    """How many descriptors more QEMU may open."""

    def __init__(self, vm, folder):
        self.vm = vm
        self.folder = folder
        self.pid = descriptors.qemu_pid(vm)
        self.usual = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        self.fillers = 0

    def used(self):
        return {int(path.name) for path in Path(f"/proc/{self.pid}/fd").iterdir()}

    def set(self, more):
        # The limit has to be above all that are open, as it is poll()'s as well. So none below may be free.
        while len(self.used()) <= max(self.used()):
            name = f"filler{self.fillers}"
            (self.folder / name).touch()
            self.vm.qmp("blockdev-add", driver="file", filename=str(self.folder / name), locking="off",
                        **{"node-name": name, "read-only": True})
            self.fillers += 1
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (len(self.used()) + more, self.usual[1]))

    def lift(self):
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, self.usual)


def test_no_descriptors_left(boot, disk, folder):
    vm = boot(Config(disks=[disk()]))
    limit = Limit(vm, folder)
    with Ordeal(vm, "QEMU may open no more descriptors, and may again") as ordeal:
        for _ in range(2):
            limit.set(0)
            ordeal.works("write through", "write back")
            limit.lift()
            ordeal.works("write through", "write back")


def test_descriptors_for_one_of_two(boot, folder):
    """The first of two files could be opened again, and the second one could not."""
    children = []
    for number in range(2):
        image = folder / f"child{number}.img"
        with image.open("wb") as file:
            file.truncate(64 * MIB)
        children.append(raw_node(file_node(image)))
    vm = boot(Config(disks=[Disk({"driver": "quorum", "vote-threshold": 2, "children": children})]))
    limit = Limit(vm, folder)
    with Ordeal(vm, "a quorum of two, and QEMU may open one descriptor more") as ordeal:
        limit.set(1)
        ordeal.works("write through", "write back")
        limit.lift()
        ordeal.works("write through", "write back")


# Other conditions


def test_no_space_left(boot, env, folder):
    """A write of the load fails while the switch flushes, and QEMU stops the machine.

    When there is space again, and the machine goes on, nobody in it has noticed.
    """
    image = folder / "disk.qcow2"
    subprocess.run([env.qemu / "qemu-img", "create", "-q", "-f", "qcow2", image, "64M"], check=True)
    error = {"event": "write_aio", "iotype": "write", "errno": 28, "state": 2, "once": True}
    node = {"driver": "qcow2", "file": blkdebug(image, error, states=[AFTER_FLUSH])}
    vm = boot(Config(disks=[Disk(node)]))
    with Ordeal(vm, "qcow2: no space left during the switch; the machine stops, and goes on") as ordeal:
        # The machine may stop before the guest has said that it has started the writer.
        with ThreadPoolExecutor(1) as thread:
            writer = thread.submit(vm.guest.start, "vbwtool set /sys/block/vda/cache_type 'write through'")
            until(lambda: vm.qmp("query-status")["status"] == "io-error", "the machine does not stop")
            vm.qmp("cont")
            ordeal.answered(writer.result(), "write through")
        ordeal.works("write back", "write through")


def test_read_only(boot, image):
    with image.open("r+b") as file:
        file.write(vbwtool_pattern(65536, 1))
    vm = boot(Config(disks=[Disk(raw_node(file_node(image)), read_only=True)]))
    with Ordeal(vm, "the disk is read-only", FIO + "--rw=randread") as ordeal:
        ordeal.works("write through", "write back")
        assert vm.guest("vbwtool verify /dev/vda 0 65536 1") == "OK"


def test_nbd_server_cannot_flush(boot, nbd, folder):
    nbd.start(["strace", "-f", "-o", str(folder / "strace.nbd"), "--seccomp-bpf", "-e", "trace=fdatasync",
               "-e", "inject=fdatasync:error=EIO:when=1..3"])
    vm = boot(Config(disks=[Disk(raw_node(nbd.node))]))
    with Ordeal(vm, "the NBD server fails to flush three times") as ordeal:
        for _ in range(3):
            ordeal.fails()
        ordeal.works("write through", "write back")


def test_nbd_server_goes_away(boot, nbd):
    """QEMU keeps requests for the time that the server is away, and the switch waits with them."""
    nbd.start()
    vm = boot(Config(disks=[Disk(raw_node(nbd.node))]))
    with Ordeal(vm, "the NBD server is killed, and comes back") as ordeal:
        nbd.kill()
        writer = ordeal.started("write through")
        assert guest_view(vm)[0] == "write back"
        assert writer.running()
        nbd.start()
        ordeal.answered(writer, "write through")
        ordeal.works("write back", "write through")


# Something else goes on meanwhile


def test_machine_stops(boot, image):
    vm = boot(Config(disks=[Disk(raw_node(blkdebug(image, SLOW_FLUSH, SLOW_FLUSH)))]))
    with Ordeal(vm, "the machine is stopped during the switch, and goes on") as ordeal:
        writer = ordeal.started("write through")
        vm.qmp("stop")
        assert vm.qmp("query-status")["status"] == "paused"
        vm.qmp("cont")
        ordeal.answered(writer, "write through")
        ordeal.works("write back", "write through")


def test_snapshot(boot, env, image, folder):
    """The disk gets an overlay during the switch."""
    overlay = folder / "overlay.qcow2"
    subprocess.run([env.qemu / "qemu-img", "create", "-q", "-f", "qcow2", overlay, "64M"], check=True)
    vm = boot(Config(disks=[Disk(raw_node(blkdebug(image, SLOW_FLUSH, SLOW_FLUSH)))]))
    vm.qmp("blockdev-add", **{"driver": "qcow2", "node-name": "overlay", "backing": None,
                              "file": file_node(overlay)})
    with Ordeal(vm, "a snapshot is taken during the switch") as ordeal:
        writer = ordeal.started("write through")
        vm.qmp("blockdev-snapshot", node="disk0-node", overlay="overlay")
        ordeal.answered(writer, "write through")
        ordeal.works("write back", "write through")


def test_reopen(boot, image):
    """The image is reopened again and again, with and without O_DIRECT, if it has that."""
    try:
        os.close(os.open(image, os.O_RDWR | os.O_DIRECT))
        options = [{"cache": {"direct": True}}, {}]
    except OSError:
        options = [{"discard": "unmap"}, {}]
    node = file_node(image, **{"node-name": "image"})
    error = {**FLUSH_ERROR, "once": True}
    vm = boot(Config(disks=[Disk(raw_node({"driver": "blkdebug", "image": node, "inject-error": [error]}))]))
    with Ordeal(vm, "blockdev-reopen at the same time; the flush fails once") as ordeal:
        ordeal.fails()
        writer = vm.guest.start(
            "for n in $(seq 100); do for mode in 'write through' 'write back'; do "
            "[ $(vbwtool set /sys/block/vda/cache_type \"$mode\") = OK ] || exit 1; done; done; echo OK")
        reopened = 0
        while writer.running():
            vm.qmp("blockdev-reopen", options=[{**node, **options[reopened % 2]}])
            reopened += 1
        assert reopened > 3
        ordeal.answered(writer, "write back")
        ordeal.works("write through")


def test_mirror(boot, image, folder):
    target = folder / "target.img"
    with target.open("wb") as file:
        file.truncate(64 * MIB)
    vm = boot(Config(disks=[Disk(flush_fails_node(image))]))
    vm.qmp("blockdev-add", **file_node(target, **{"node-name": "target"}))
    with Ordeal(vm, "a mirror job at the same time; the disk's flush fails once") as ordeal:
        vm.qmp("blockdev-mirror", **{"job-id": "copy", "device": "disk0-node", "target": "target",
                                     "sync": "full", "copy-mode": "write-blocking"})
        ordeal.fails()
        ordeal.works("write through", "write back")
        until(lambda: vm.qmp("query-jobs")[0]["status"] == "ready", "the job does not get ready")
        ordeal.works("write through", "write back")
        vm.qmp("block-job-cancel", device="copy")
        until(lambda: not vm.qmp("query-jobs"), "the job does not end")


def test_resize(boot, image):
    vm = boot(Config(disks=[Disk(flush_fails_node(image))]))
    with Ordeal(vm, "the disk grows during the switch; the flush fails once") as ordeal:
        ordeal.fails()
        for number, mode in enumerate(("write through", "write back") * 3):
            writer = vm.guest.start(f"vbwtool set /sys/block/vda/cache_type '{mode}'")
            vm.qmp("block_resize", **{"node-name": "disk0-node", "size": (65 + number) * MIB})
            ordeal.answered(writer, mode)
