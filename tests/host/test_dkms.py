# SPDX-License-Identifier: GPL-2.0
"""dkms builds and installs the module from dkms.conf, as README.md says, in folders of its own."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.stock_kernel("dkms builds for a distribution's kernel")

HEADERS = "/usr/src/linux-headers-"


class Dkms:
    """dkms, with all that it and the module's build write below a folder."""

    def __init__(self, env, folder):
        self.env = env
        self.folder = folder
        for name in ("tree", "usr-src", "modules", "cache/kdir"):
            (folder / name).mkdir(parents=True)
        # A KDIR that is there already is all that it does not make itself.
        kdir = subprocess.run([env.src / "scripts/kdir.sh", env.release],
                              check=True, capture_output=True, text=True).stdout.strip()
        (folder / "cache/kdir" / Path(kdir).name).symlink_to(kdir)
        self.kernel(env.release, Path(HEADERS + env.release))

    def kernel(self, release, headers):
        """Have the headers of a kernel be found."""
        (self.folder / "modules" / release).mkdir()
        (self.folder / "modules" / release / "build").symlink_to(headers)

    def __call__(self, command, release=None):
        environ = {name: value for name, value in os.environ.items() if not name.startswith("VBW_")}
        result = subprocess.run(
            ["dkms", *command.split(), "--dkmstree", self.folder / "tree",
             "--sourcetree", self.folder / "usr-src", "--installtree", self.folder / "modules",
             "-k", release or self.env.release],
            cwd=self.env.src, env={**environ, "VBW_CACHE": str(self.folder / "cache")},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
        with (self.folder / "output").open("a") as log:
            log.write(f"$ dkms {command}\n{result.stdout}{result.stderr}[{result.returncode}]\n")
        return result

    def clear(self):
        """Remove what is big."""
        for name in ("tree", "usr-src", "modules", "cache"):
            shutil.rmtree(self.folder / name)


@pytest.fixture
def dkms(env, folder):
    made = Dkms(env, folder)
    yield made
    made.clear()


@pytest.fixture
def commands(env):
    """What README.md has one type: to add the source, and to build and install it."""
    found = re.findall(r"^    dkms (.*)$", (env.src / "README.md").read_text(), re.M)
    assert [command.split()[0] for command in found] == ["add", "install"]
    return found


def test_builds_and_installs(env, dkms, commands):
    for command in commands:
        result = dkms(command)
        assert result.returncode == 0, result.stdout + result.stderr
    modules = dkms.folder / "modules"
    found = [path.relative_to(modules) for path in modules.rglob("*.ko*")]
    assert found == [Path(env.release, "updates/dkms/virtio_blk_wce.ko")]
    vermagic = subprocess.run(["modinfo", "-F", "vermagic", modules / found[0]],
                              check=True, capture_output=True, text=True).stdout
    assert vermagic.split()[0] == env.release
    assert dkms("status").stdout.strip().endswith(": installed")


def test_names_what_lacks(dkms, commands):
    """A kernel whose linux-source is not there; dkms names its log, which tells."""
    release = "7.99.1+deb13-amd64"
    dkms.kernel(release, Path(HEADERS + dkms.env.release))
    assert dkms(commands[0]).returncode == 0
    result = dkms(commands[1], release)
    assert result.returncode == 10
    log = re.search(r"Consult (\S+) for more", result.stdout + result.stderr)
    assert f"is missing; install linux-headers-{release} and linux-source-7.99" \
        in Path(log.group(1)).read_text()


def test_leaves_other_kernels_alone(dkms, commands):
    """A system may have one that is too old; its packages must install all the same."""
    release = "6.12.1+deb13-amd64"
    dkms.kernel(release, Path(HEADERS + dkms.env.release))
    assert dkms(commands[0]).returncode == 0
    result = dkms(commands[1], release)
    assert result.returncode == 77
    assert "BUILD_EXCLUSIVE" in result.stdout + result.stderr
