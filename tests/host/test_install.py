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


class TestPackage:
    """What the package tells modprobe; test_package.py has it in a system."""

    CONF = "debian/virtio_blk_wce.conf"

    def test_ours_first(self, env, tree):
        """For who loads it, and for makers of an initramfs, who do not run the command."""
        (tree / "modprobe.d").mkdir()
        (tree / "modprobe.d/virtio_blk_wce.conf").write_text((env.src / self.CONF).read_text())

        def shown(*words):
            output = subprocess.run(
                ["modprobe", "-d", str(tree), "-C", str(tree / "modprobe.d"), "-S", env.release, "--show-depends", *words],
                check=True, capture_output=True, text=True).stdout
            return [line.rsplit("/", 1)[-1] for line in re.findall(r"^(insmod .*/virtio_blk\w*|install)", output, re.M)]

        assert shown("virtio_blk") == ["install", "virtio_blk"]
        assert shown("--ignore-install", "virtio_blk_wce") == ["virtio_blk_wce"]

    @pytest.mark.parametrize("settings, handed_on", [
        ("", ""),
        ("options virtio_blk poll_queues=2\n", "poll_queues=2"),
        ("options virtio-blk queue_depth=8\noptions other a=1\noptions virtio_blk poll_queues=2 num_request_queues=3\n",
         "queue_depth=8 poll_queues=2 num_request_queues=3"),
        ("options virtio_blk_wce poll_queues=3\noptions virtio_blk poll_queues=2\n", "poll_queues=2 poll_queues=3"),
    ])
    def test_options_are_handed_on(self, env, folder, settings, handed_on):
        """The command that the file has modprobe run, with a modprobe that tells what it is called with."""
        (folder / "modprobe.d").mkdir()
        (folder / "modprobe.d/local.conf").write_text(settings)
        # kmod goes by the name that it is called by.
        (folder / "real").mkdir()
        (folder / "real/modprobe").symlink_to("/usr/bin/kmod")
        (folder / "modprobe").write_text(
            f'#!/bin/sh\n[ "$1" != --showconfig ] || exec {folder}/real/modprobe -C {folder}/modprobe.d "$@"\necho "$@"\n')
        (folder / "modprobe").chmod(0o755)
        command = re.search(r"^install virtio_blk_wce (.*)$", (env.src / self.CONF).read_text(), re.M).group(1)
        said = subprocess.run(
            ["bwrap", "--unshare-user", "--dev-bind", "/", "/", "--overlay-src", "/usr", "--tmp-overlay", "/usr", "sh", "-ec",
             f'rm /usr/sbin/modprobe; cp {folder}/modprobe /usr/sbin/modprobe; exec sh -c "$1"', "sh", command],
            env={**os.environ, "CMDLINE_OPTS": "queue_depth=4"}, check=True, capture_output=True, text=True).stdout
        assert said.split() == ["--quiet", "--ignore-install", "virtio_blk_wce", *handed_on.split(), "queue_depth=4"]
