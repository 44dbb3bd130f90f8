# SPDX-License-Identifier: GPL-2.0
"""Which module a system takes for a virtio disk, as README.md tells to arrange it."""

import os
import shutil
import subprocess

import pytest

ALIAS = "virtio:d00000002v00001AF4"
BLACKLIST = "blacklist virtio_blk\n"


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


def candidates(tree, release, config):
    """The modules that modprobe considers for a virtio disk."""
    folder = tree / "modprobe.d"
    folder.mkdir(exist_ok=True)
    (folder / "virtio_blk_wce.conf").write_text(config)
    output = subprocess.run(
        ["modprobe", "-d", str(tree), "-C", str(folder), "-S", release, "--use-blacklist",
         "--show-depends", ALIAS], check=True, capture_output=True, text=True).stdout
    return sorted(line.split()[1].rsplit("/", 1)[1].split(".")[0]
                  for line in output.splitlines() if line.startswith("insmod"))


def test_both_modules_are_for_the_same_device(env, tree):
    """So without more ado it depends on the order which one gets the disk."""
    assert candidates(tree, env.release, "") == ["virtio_blk", "virtio_blk_wce"]


def test_blacklist_leaves_ours(env, tree):
    assert candidates(tree, env.release, BLACKLIST) == ["virtio_blk_wce"]


def test_readme_says_the_same(env):
    readme = (env.src / "README.md").read_text()
    assert BLACKLIST.strip() in readme
