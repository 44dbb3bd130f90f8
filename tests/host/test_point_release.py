# SPDX-License-Identifier: GPL-2.0
"""A new point release of the kernel: one line of the pins changes, and the driver is built for it.

It is pretended: the build root's kernel, with the next number. There is no such kernel to boot.
"""

import os
import re
import shutil
import subprocess

import pytest

pytestmark = [pytest.mark.stock_kernel("no guest"), pytest.mark.pinned_kernel("it is that one that moves on"),
              pytest.mark.long("a KDIR is made, which takes minutes")]

# The archive brought to the next version, in place: the line has as many characters as before.
ROOT = """
cd /usr/src
mv linux-headers-$NOW linux-headers-$NEXT
xz -dcT2 $SOURCE.tar.xz | sed "s/^SUBLEVEL = $OLD\\$/SUBLEVEL = $NEW/" | xz -0T2 >next
mv next $SOURCE.tar.xz
module=$("$0")
modinfo -F vermagic $module
"""


@pytest.fixture
def build(env, folder):
    """Build the driver, as "make module" does, from a checkout whose pins name the next release, or do not."""
    release = env.release
    version, rest = release.split("+", 1)
    head, old = version.rsplit(".", 1)
    # As many digits, or the archive is none any more.
    new = str(int(old) - 1 if set(old) == {"9"} else int(old) + 1)
    following = f"{head}.{new}+{rest}"
    marker = folder / "vbw-root"
    marker.write_text("# The pins are what there is.\n")

    def run(change):
        checkout = folder / "checkout"
        shutil.copytree(env.src, checkout, ignore=shutil.ignore_patterns(".git", "tests"), dirs_exist_ok=True)
        pins = checkout / "scripts/packages/pins"
        if change:
            text, count = re.subn(rf'^LINUX="{re.escape(version)}-\S+ \w+"$', f'LINUX="{head}.{new}-1~bpo13+1 0123"',
                                  pins.read_text(), flags=re.M)
            assert count == 1
            pins.write_text(text)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("VBW_")}
        result = subprocess.run(
            ["bwrap", "--unshare-user", "--uid", "0", "--gid", "0", "--dev-bind", "/", "/", "--overlay-src", "/usr",
             "--tmp-overlay", "/usr", "--ro-bind", str(marker), "/etc/vbw-root",
             "bash", "-euo", "pipefail", "-c", ROOT, str(checkout / "scripts/module.sh")],
            env={**kept, "VBW_CACHE": str(folder / "cache"), "NOW": release, "NEXT": following, "OLD": old, "NEW": new,
                 "SOURCE": f"linux-source-{head}"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1500, check=False)
        (folder / "output").write_text(result.stdout + result.stderr)
        return following, result

    yield run
    for name in ("checkout", "cache"):
        shutil.rmtree(folder / name, ignore_errors=True)


def test_one_line(build):
    following, result = build(change=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[0] == following
    assert "driver: compiling" in result.stderr and "warning" not in result.stderr


def test_without_the_line(env, build):
    """What is there is not what the pins name, which is said before anything is built."""
    _, result = build(change=False)
    assert result.returncode != 0
    assert re.search(rf"/usr/src/linux-headers-{re.escape(env.release)}/\.config is missing; install "
                     rf"linux-headers-\S+ and linux-source-\S+$", result.stderr.strip().splitlines()[-1])
