# SPDX-License-Identifier: GPL-2.0
"""Which module a system takes for a virtio disk, as README.md tells to arrange it."""

import os
import re
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.stock_kernel("it is about that kernel's own modules")

ALIAS = "virtio:d00000002v00001AF4"
SOFTDEP = "softdep virtio_blk pre: virtio_blk_wce"


@pytest.fixture
def tree(env, folder):
    """A /lib/modules with the kernel's driver and ours, indexed by depmod."""
    modules = folder / "lib/modules" / env.release
    stock = env.kernel.parent / "kernel/drivers/block/virtio_blk.ko.xz"
    for source, place in ((stock, "kernel/drivers/block"), (env.module, "updates")):
        (modules / place).mkdir(parents=True, exist_ok=True)
        shutil.copy(source, modules / place / os.path.basename(source))
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(env.kernel.parent / name, modules / name)
    subprocess.run(["depmod", "-b", str(folder), env.release], check=True)
    return folder


def loaded(tree, release, config):
    """The modules that modprobe loads for a virtio disk, the first one first."""
    folder = tree / "modprobe.d"
    folder.mkdir(exist_ok=True)
    (folder / "virtio_blk_wce.conf").write_text(config + "\n")
    output = subprocess.run(
        ["modprobe", "-d", str(tree), "-C", str(folder), "-S", release, "--show-depends", ALIAS],
        check=True, capture_output=True, text=True).stdout
    return [line.split()[1].rsplit("/", 1)[1].split(".")[0]
            for line in output.splitlines() if line.startswith("insmod")]


def test_both_modules_are_for_the_same_device(env, tree):
    """So without more ado it depends on the order which one gets the disk."""
    assert sorted(loaded(tree, env.release, "")) == ["virtio_blk", "virtio_blk_wce"]


def test_softdep_puts_ours_first(env, tree):
    """Whichever of the two is asked for."""
    assert loaded(tree, env.release, SOFTDEP)[0] == "virtio_blk_wce"
    alias = subprocess.run(["modprobe", "-d", str(tree), "-C", str(tree / "modprobe.d"), "-S", env.release,
                            "--show-depends", "virtio_blk"], check=True, capture_output=True, text=True).stdout
    assert re.findall(r"(virtio_blk\w*)\.ko", alias) == ["virtio_blk_wce", "virtio_blk"]


def test_kernel_without_ours_takes_the_other(env, tree):
    shutil.rmtree(tree / "lib/modules" / env.release / "updates")
    subprocess.run(["depmod", "-b", str(tree), env.release], check=True)
    assert loaded(tree, env.release, SOFTDEP) == ["virtio_blk"]


def test_readme_says_the_same(env):
    assert SOFTDEP in (env.src / "README.md").read_text()
