# SPDX-License-Identifier: GPL-2.0
"""The patched QEMU where "make qemu_install" puts it, on a host that has the packages that it names, and no other."""

import json
import re
import shutil
import subprocess

import pytest

pytestmark = [pytest.mark.stock_kernel("no guest"), pytest.mark.xdist_group("qemu-install")]


@pytest.fixture(scope="module")
def prefix(env):
    """Where it was installed."""
    place = env.out / "qemu-wce"
    subprocess.run([env.src / "scripts/qemu-install.sh", place], check=True, capture_output=True)
    yield place
    shutil.rmtree(place)


def host(prefix, packages):
    """bwrap's words for a host with nothing but the files of some packages and what was installed."""
    words = ["bwrap", "--unshare-user", "--tmpfs", "/", "--dev", "/dev", "--proc", "/proc",
             "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--ro-bind", prefix, prefix]
    files = subprocess.run(["dpkg-query", "-L", *packages], check=True, capture_output=True, text=True).stdout
    for path in sorted(set(files.split("\n"))):
        if re.fullmatch(r"(?:/usr)?/lib(?:64)?/(?:x86_64-linux-gnu/)?[^/]+\.so\.[\w.]+", path):
            place = path if path.startswith("/usr") else "/usr" + path
            words += ["--ro-bind", place, place]
    return [str(word) for word in words]


def answer(prefix, packages, *words):
    """Start it with a machine, and ask its monitor."""
    commands = [{"execute": "qmp_capabilities"}, {"execute": "query-status"}, {"execute": "quit"}]
    return subprocess.run(
        [*host(prefix, packages), prefix / "bin/qemu-system-x86_64", "-nodefaults", "-display", "none", "-S",
         "-accel", "tcg", "-qmp", "stdio", *words],
        input="\n".join(map(json.dumps, commands)), capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("machine", ["q35", "pc", "microvm"])
def test_runs_with_what_it_names(prefix, machine):
    """It finds its libraries, and its firmware by itself: no -L."""
    packages = (prefix / "share/qemu/packages").read_text().split()
    result = answer(prefix, packages, "-machine", machine, "-device", "virtio-rng-device" if machine == "microvm"
                    else "virtio-rng-pci")
    assert result.returncode == 0, result.stderr
    assert '"status": "prelaunch"' in result.stdout


def test_each_package_is_needed(prefix):
    """What is missing on this host is missed: the test above can fail."""
    packages = (prefix / "share/qemu/packages").read_text().split()
    assert "libglib2.0-0t64" in packages and "libaio1t64" in packages
    result = answer(prefix, [name for name in packages if name != "libaio1t64"], "-machine", "q35")
    assert result.returncode != 0 and "libaio" in result.stderr


def test_firmware_is_its_own(prefix):
    packages = (prefix / "share/qemu/packages").read_text().split()
    firmware = prefix / "share/qemu/bios-256k.bin"
    aside = firmware.rename(prefix / "aside")
    try:
        result = answer(prefix, packages, "-machine", "q35")
    finally:
        aside.rename(firmware)
    assert result.returncode != 0 and "bios-256k.bin" in result.stderr


def test_tools(prefix):
    packages = (prefix / "share/qemu/packages").read_text().split()
    for name in ("qemu-img", "qemu-io", "qemu-storage-daemon"):
        subprocess.run([*host(prefix, packages), prefix / "bin" / name, "--version"], check=True, capture_output=True)


def test_says_where_it_cannot_write(env):
    result = subprocess.run([env.src / "scripts/qemu-install.sh", "/proc/nowhere"], capture_output=True, text=True,
                            check=False)
    assert "/proc/nowhere cannot be written to" in result.stderr.splitlines()[-1]
