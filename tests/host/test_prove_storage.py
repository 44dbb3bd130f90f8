# SPDX-License-Identifier: GPL-2.0
"""The storage that forgets is a disk by the rules, and real NBD clients and the kernel take it for one."""

import asyncio
import os
import random
import struct
import subprocess
import threading

import pytest

from prove import __main__ as prove
from prove import fuse, nbd, records, trials
from prove.judge import Judge
from prove.storage import Storage
from vbw.env import may_mount

BLOCK = records.BLOCK
MIB = 1 << 20


def filled(number):
    """A block's content."""
    return bytes([number]) * BLOCK


@pytest.fixture
def storage(folder):
    made = Storage(folder / "storage", 8 * MIB)
    yield made
    made.close()


def write(storage, block, number, fua=False):
    """A write that is complete."""
    request = storage.arrive("write", block * BLOCK, BLOCK, filled(number), fua)
    storage.complete(request)
    return request


def flush(storage):
    """A flush with nothing beside it."""
    storage.complete(storage.arrive("flush"))


def test_a_write_is_volatile(storage):
    write(storage, 1, 7)
    assert storage.complete(storage.arrive("read", BLOCK, BLOCK)) == filled(7)
    assert storage.durable_block(1) == bytes(BLOCK)
    flush(storage)
    assert storage.durable_block(1) == filled(7)


def test_fua_makes_durable_that_write_alone(storage):
    write(storage, 1, 7)
    write(storage, 2, 8, fua=True)
    assert (storage.durable_block(1), storage.durable_block(2)) == (bytes(BLOCK), filled(8))


def test_a_flush_covers_what_was_complete_when_it_arrived(storage):
    late = storage.arrive("write", 2 * BLOCK, BLOCK, filled(8))
    write(storage, 1, 7)
    request = storage.arrive("flush")
    storage.complete(late)
    assert storage.durable_block(1) == bytes(BLOCK), "it is not complete yet"
    storage.complete(request)
    assert (storage.durable_block(1), storage.durable_block(2)) == (filled(7), bytes(BLOCK))
    flush(storage)
    assert storage.durable_block(2) == filled(8)


def test_what_is_durable_is_not_undone_by_what_came_before(storage):
    write(storage, 1, 7)
    write(storage, 1, 8, fua=True)
    flush(storage)
    assert storage.durable_block(1) == filled(8)


def test_a_cut_leaves_the_durable_and_with_luck_more(storage, folder):
    write(storage, 1, 7, fua=True)
    for block in range(2, 102):
        write(storage, block, 8)
    storage.arrive("write", 200 * BLOCK, BLOCK, filled(9))
    storage.snapshot(folder / "cut")
    content = (folder / "cut").read_bytes()
    assert content.count(filled(7)) == 1 and b"\x08" not in content
    found = set()
    for seed in range(20):
        storage.snapshot(folder / "cut", random.Random(seed))
        content = (folder / "cut").read_bytes()
        assert content[BLOCK:2 * BLOCK] == filled(7)
        found.add(content.count(filled(8)))
    assert len(found) > 3 and 0 < max(found) <= 100


def test_what_is_broken_is_told_once_to_each(storage):
    storage.defect = (BLOCK, 2 * BLOCK - 1)
    bad = write(storage, 1, 7, fua=True)
    assert bad.failed and storage.durable_block(1) == bytes(BLOCK)
    write(storage, 1, 7)
    request = storage.arrive("flush")
    storage.complete(request)
    assert request.failed
    request = storage.arrive("flush")
    storage.complete(request)
    assert not request.failed, "the data was given up"


def record(block, sequence):
    """A block as provetool writes it."""
    check = records._mix(records._mix(block + 1) ^ sequence ^ 1 << 32)
    return (struct.pack("<IIQQQ", 0x57425655, 1, block, sequence, check) + bytes(480)) * 8


def test_the_judge_sees_what_is_not_there(storage):
    judge = Judge(storage)
    for sequence, fua in ((1, True), (2, False)):
        storage.complete(storage.arrive("write", 3 * BLOCK, BLOCK, record(3, sequence), fua))
        judge.take(records.Ack(3, sequence, 1, "fsync"))
    assert (judge.acknowledged, judge.lost) == (2, 1)
    assert "durable is 1" in judge.examples[0]
    torn = record(3, 5)[:2048] + record(3, 4)[2048:]
    assert records.oldest(torn, 3) == 4
    assert records.oldest(torn, 4) == records.oldest(torn[:-512] + bytes(512), 3) == 0


@pytest.fixture
def loop():
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join()


def run(loop, what):
    """Have the loop do something."""
    return asyncio.run_coroutine_threadsafe(what, loop).result(30)


@pytest.mark.parametrize("structured", [True, False], ids=["structured", "simple"])
def test_a_client_of_nbd(env, loop, storage, tmp_path, structured):
    server = nbd.Server(storage, 1, structured=structured)
    run(loop, server.start(tmp_path / "nbd"))
    uri = f"nbd+unix:///disk?socket={tmp_path / 'nbd'}"

    def io(*commands):
        words = [word for command in commands for word in ("-c", command)]
        done = subprocess.run([env.qemu / "qemu-io", "-t", "writeback", "-f", "raw", *words, uri],
                              capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0 and "failed" not in done.stdout, done.stdout + done.stderr

    info = subprocess.run([env.qemu / "qemu-img", "info", uri], capture_output=True, text=True, check=True)
    assert "virtual size: 8 MiB" in info.stdout
    # What qemu-io does at its end is to flush; nothing of the last command is durable before that.
    io("write -P 7 4k 4k", "write -f -P 8 8k 4k", "read -P 7 4k 4k", "flush", "write -z 12k 4k", "discard 4k 4k",
       "aio_write -P 9 1M 2M", "aio_write -P 10 3M 2M", "aio_flush")
    assert storage.counts["write+fua"] == 1 and storage.counts["flush"] >= 2
    assert storage.durable_block(2) == filled(8)
    assert storage.durable_block(256) == filled(9) and storage.durable_block(1279) == filled(10)
    run(loop, server.stop())


@pytest.mark.skipif(not may_mount(), reason="/dev/fuse cannot be opened")
def test_a_page_cache_that_can_be_lost(loop, storage, tmp_path):
    files = fuse.FileSystem(tmp_path / "mnt", 1)
    path = files.add("disk", storage)
    run(loop, files.start())
    try:
        fd = os.open(path, os.O_RDWR)
        assert os.fstat(fd).st_size == 8 * MIB
        os.pwrite(fd, filled(7), BLOCK)
        assert storage.durable_block(1) == bytes(BLOCK)
        again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_DSYNC)
        os.pwrite(again, filled(8), 2 * BLOCK)
        assert (storage.durable_block(1), storage.durable_block(2)) == (filled(7), filled(8))
        assert os.pread(fd, BLOCK, 2 * BLOCK) == filled(8)
        os.pwrite(again, b"some bytes", 2 * BLOCK + 1000)
        assert storage.durable_block(2)[990:1020] == b"\x08" * 10 + b"some bytes" + b"\x08" * 10

        # Of two that have it open each is told once of what could not be written back.
        storage.defect = (0, MIB)
        os.pwrite(fd, filled(9), 0)
        for each in (fd, again):
            with pytest.raises(OSError):
                os.fsync(each)
            os.fsync(each)
        os.close(again)
        os.close(fd)
    finally:
        run(loop, files.stop())


OUTCOMES = {
    # acknowledged and lost: of ours, of the control; why ours says nothing; the exit status
    "all-well": ((100, 0), (50, 7), "", 0),
    "ours-loses": ((100, 1), (50, 7), "", 1),
    "the-judge-is-blind": ((100, 0), (50, 0), "", 1),
    "nobody-acknowledged": ((0, 0), (50, 7), "", 1),
    "not-what-it-says": ((100, 0), (50, 7), "BadSetUp: no switches", 1),
}


@pytest.mark.parametrize("ours, control, broken, status", OUTCOMES.values(), ids=OUTCOMES.keys())
def test_the_last_line_and_the_exit_status(env, monkeypatch, capsys, ours, control, broken, status):
    def nothing(bench):
        """Is never run."""

    def result(env, entry, seed, seconds):
        acknowledged, lost = control if entry.control else ours
        return trials.Result(entry, seed, acknowledged, lost, broken="" if entry.control else broken)
    monkeypatch.setattr(prove, "TRIALS", {name: trials.Trial(name, nothing, "", control=name == "control")
                                          for name in ("ours", "control")})
    monkeypatch.setattr(prove, "run", result)
    monkeypatch.setattr("sys.argv", ["prove", "--seed", "1"])
    assert prove.main() == status
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"prove: {ours[0] + control[0]} acknowledged, {ours[1]} lost, {control[1]} lost by controls"


@pytest.mark.parametrize("lost, broken, status", [(0, "", 0), (3, "", 0), (3, "BadSetUp: no cuts", 1)])
def test_what_others_lose_is_counted_apart(env, monkeypatch, capsys, lost, broken, status):
    entry = trials.Trial("theirs", lambda bench: None, "", foreign="a file system")
    monkeypatch.setattr(prove, "TRIALS", {"theirs": entry})
    monkeypatch.setattr(prove, "run", lambda *args: trials.Result(entry, 1, 100, lost, broken=broken))
    monkeypatch.setattr("sys.argv", ["prove", "--seed", "1"])
    assert prove.main() == status
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "prove: 100 acknowledged, 0 lost, 0 lost by controls"
    assert (f"{lost} lost by others than driver and device, as --list says" in lines) == (lost > 0)
