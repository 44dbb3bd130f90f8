# SPDX-License-Identifier: GPL-2.0
"""Reopening an image reaches the file that is open; stock QEMU goes by its name.

What else can become of a name is tested by the series itself, on the patched QEMU alone.
"""

import subprocess

import pytest

pytestmark = pytest.mark.stock_kernel("no guest")

MIB = 1 << 20
QEMUS = pytest.mark.parametrize("stock", [False, True], ids=["patched", "stock"])
REOPEN = "reopen -o cache.direct=on"


@pytest.fixture
def images(folder):
    """The image, which is full of ones, and another file, full of twos."""
    paths = [folder / "image", folder / "other"]
    for byte, path in enumerate(paths, 1):
        path.write_bytes(bytes([byte]) * MIB)
    yield paths
    for path in paths:
        path.unlink(missing_ok=True)


@pytest.fixture
def shell(env, images):
    """Start qemu-io with the image; returns what runs a command there."""
    processes = []

    def start(stock):
        program = (env.qemu_stock if stock else env.qemu) / "qemu-io"
        process = subprocess.Popen([program, "-f", "raw", images[0]], text=True, bufsize=0,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT)
        processes.append(process)

        def until_prompt():
            text = ""
            while not text.endswith("qemu-io> "):
                char = process.stdout.read(1)
                assert char, f"qemu-io has ended: {text}"
                text += char
            return text.removesuffix("qemu-io> ").strip()

        def run(command):
            process.stdin.write(command + "\n")
            return until_prompt()

        until_prompt()
        return run

    yield start
    for process in processes:
        process.communicate("quit\n", timeout=10)


def has(run, byte):
    """Whether the first block of what is open consists of a byte."""
    return "Pattern verification failed" not in run(f"read -P {byte} 0 64k")


@QEMUS
def test_name_of_another_file(images, shell, stock):
    """Stock QEMU reads, and would write, what has nothing to do with the guest's disk."""
    run = shell(stock)
    assert has(run, 1)
    images[1].rename(images[0])
    assert run(REOPEN) == ""
    assert has(run, 2 if stock else 1)


@QEMUS
def test_name_that_is_gone(images, shell, stock):
    """Stock QEMU cannot change the cache mode of an image that somebody has deleted."""
    run = shell(stock)
    images[0].unlink()
    answer = run(REOPEN)
    assert ("No such file" in answer) == stock
    assert (answer == "") == (not stock)
    assert has(run, 1)
