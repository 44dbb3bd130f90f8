# SPDX-License-Identifier: GPL-2.0
"""dkms builds and installs the module from dkms.conf, as README.md says, and leaves kernels alone."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.stock_kernel("dkms builds for a distribution's kernel"),
              pytest.mark.pinned_kernel("the build root has the headers of one")]

HEADERS = "/usr/src/linux-headers-"
# dkms's exit status for a module that is not for the kernel.
SKIPPED = 77


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
    """A kernel whose linux-source is not there is skipped, and what to install is said."""
    release = "7.99.1+deb13-amd64"
    dkms.kernel(release, Path(HEADERS + dkms.env.release))
    assert dkms(commands[0]).returncode == 0
    result = dkms(commands[1], release)
    assert result.returncode == SKIPPED
    output = result.stdout + result.stderr
    assert f"is missing; install linux-headers-{release} and linux-source-7.99" in output
    assert f"when that is mended: dkms autoinstall -k {release}" in output


def test_leaves_other_kernels_alone(dkms, commands):
    """A system may have one that is too old; its packages must install all the same."""
    release = "6.12.1+deb13-amd64"
    dkms.kernel(release, Path(HEADERS + dkms.env.release))
    assert dkms(commands[0]).returncode == 0
    result = dkms(commands[1], release)
    assert result.returncode == SKIPPED
    assert f"kernel {release} is too old" in result.stdout + result.stderr


def test_says_nothing_when_nothing_is_built(dkms, commands):
    """dkms reads its file for other commands, too: they build nothing, and do not complain."""
    release = "7.99.1+deb13-amd64"
    dkms.kernel(release, Path(HEADERS + dkms.env.release))
    assert dkms(commands[0]).returncode == 0
    for command in ("status", "uninstall virtio_blk_wce/0.1", "remove virtio_blk_wce/0.1"):
        result = dkms(command, release)
        assert "left out" not in result.stdout + result.stderr, result


GOES_ON = "the kernel's package goes on"
# What happens in a system when a kernel is installed: the kernel's package runs these hooks.
HOOK = """
mkdir -p /usr/src/virtio_blk_wce-0.1
cp -a $VBW_SRC/[!.]* /usr/src/virtio_blk_wce-0.1/
ln -s /usr/src/linux-headers-$RELEASE /usr/lib/modules/$RELEASE/build
dkms add virtio_blk_wce/0.1
{prepare}
run-parts --report --exit-on-error --arg=$RELEASE /etc/kernel/postinst.d
find /usr/lib/modules/$RELEASE -name 'virtio_blk_wce.ko*'
echo "%s"
""" % GOES_ON


@pytest.fixture
def kernel_is_installed(env, dkms):
    """Have the hooks run in a system of their own: the build root, with what is written to it kept apart."""

    def run(prepare=""):
        layers = []
        for name in ("/usr", "/etc", "/var/lib"):
            layers += ["--overlay-src", name, "--tmp-overlay", name]
        result = subprocess.run(
            ["bwrap", "--unshare-user", "--uid", "0", "--gid", "0", "--dev-bind", "/", "/", *layers,
             "sh", "-ec", HOOK.format(prepare=prepare)],
            env={**os.environ, "RELEASE": env.release, "VBW_CACHE": str(dkms.folder / "cache")},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=300, check=False)
        (dkms.folder / "hooks").write_text(result.stdout)
        return result

    return run


def test_kernel_with_everything_gets_it(env, kernel_is_installed):
    result = kernel_is_installed()
    assert result.returncode == 0, result.stdout
    assert result.stdout.splitlines()[-2:] == [
        f"/usr/lib/modules/{env.release}/updates/dkms/virtio_blk_wce.ko.xz", GOES_ON]


@pytest.mark.parametrize("prepare, reason", [
    ("rm /usr/src/linux-source-*.tar.xz; rm -r $VBW_CACHE/kdir",
     r"/usr/src/linux-source-7\.\d+\.tar\.xz is missing; install linux-headers-\S+ and linux-source-7\.\d+"),
    ("rm /usr/bin/bindgen", "bindgen is missing here; install the package bindgen"),
    # The tools are there, and the driver does not compile: a kernel that is later than the driver.
    ("echo 'not Rust' >> /usr/src/virtio_blk_wce-0.1/drivers/block/virtio_blk_wce/driver.rs",
     "failed: driver: compiling"),
], ids=["no linux-source", "no bindgen", "does not compile"])
def test_kernel_installs_without_it(env, kernel_is_installed, prepare, reason):
    """The module is left out, with the reason, and the kernel's package is none the worse for it."""
    result = kernel_is_installed(prepare)
    assert result.returncode == 0, result.stdout
    assert re.search(reason, result.stdout), result.stdout
    assert "virtio_blk_wce is left out for kernel" in result.stdout
    assert result.stdout.splitlines()[-1] == GOES_ON
    assert f"/usr/lib/modules/{env.release}/updates" not in result.stdout
