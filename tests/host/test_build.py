# SPDX-License-Identifier: GPL-2.0
"""The scripts that build, on hosts that lack something: each says what, and what to do.

bubblewrap plays the host: the build root without the mark that tells that it is one.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not shutil.which("bwrap"), reason="no bubblewrap to play a host with")

USER = 1000


@pytest.fixture
def host(env, folder):
    """Run a script on a host that is not the build root, with some files being others."""

    def run(script, *args, uid=0, files=None, tools=(), only_tools=False, **environment):
        binds = ["--ro-bind", "/dev/null", "/etc/vbw-root"]
        for name, text in (files or {}).items():
            place = folder / name.replace("/", "_")
            place.write_text(text)
            binds += ["--ro-bind", str(place), name]
        tool_folder = folder / "tools"
        tool_folder.mkdir(exist_ok=True)
        for name, text in dict(tools).items():
            (tool_folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (tool_folder / name).chmod(0o755)
        path = f"{tool_folder}" if only_tools else f"{tool_folder}:{os.environ['PATH']}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("VBW_")}
        result = subprocess.run(
            ["/usr/bin/bwrap", "--unshare-user", "--uid", str(uid), "--gid", str(uid), "--dev-bind", "/", "/",
             *binds, str(env.src / "scripts" / script), *args],
            env={**kept, "PATH": path, "VBW_CACHE": str(folder / "cache"), **environment},
            capture_output=True, text=True, timeout=300, check=False)
        (folder / "output").write_text(result.stdout + result.stderr)
        return result

    yield run
    shutil.rmtree(folder / "cache", ignore_errors=True)


def complaint(result):
    """The last line of a script that failed."""
    assert result.returncode != 0, result.stdout + result.stderr
    return result.stderr.splitlines()[-1]


class TestBuildRoot:
    """Making the build root."""

    # What an ordinary user needs, as far as the build root itself has it not.
    TOOLS = {"mmdebstrap": "", "newuidmap": ""}
    USERS = {"/etc/passwd": f"root:x:0:0::/root:/bin/sh\nann:x:{USER}:{USER}::/:/bin/sh\n"}

    def test_user_is_told_what_to_install(self, host):
        assert complaint(host("buildroot.sh", uid=USER)).endswith(
            "this host lacks mmdebstrap uidmap; install them with: "
            "sudo apt-get install mmdebstrap uidmap")

    def test_root_installs_it(self, host, folder):
        """apt-get is asked for what lacks, a second time with fresh lists, and its words are shown."""
        asked = folder / "asked"
        result = host("buildroot.sh",
                      tools={"apt-get": f'echo "$@" >> {asked}; echo "E: no such package"; exit 100'})
        assert complaint(result).startswith("[") and "failed: host: installing mmdebstrap" in result.stderr
        assert "E: no such package" in result.stderr
        assert asked.read_text().splitlines() == [
            "install -y --no-install-recommends mmdebstrap", "update"]

    def test_host_without_user_namespaces(self, host):
        result = host("buildroot.sh", uid=USER, files=self.USERS,
                      tools={**self.TOOLS, "unshare": "exit 1"})
        assert "this host forbids user namespaces" in complaint(result)

    def test_user_without_subordinate_ids(self, host):
        result = host("buildroot.sh", uid=USER, files={**self.USERS, "/etc/subuid": "bob:1:1\n"},
                      tools={**self.TOOLS, "unshare": ""})
        assert complaint(result).endswith(
            "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ann")

    def test_host_that_is_no_debian(self, host):
        """Nothing is found of what is needed, nor what installs it."""
        tools = {name: f'exec /usr/bin/{name} "$@"' for name in ("dirname", "date", "id")}
        result = host("buildroot.sh", uid=USER, tools=tools, only_tools=True)
        assert "has no apt-get; install them, or use BUILDROOT=none" in complaint(result)


@pytest.mark.stock_kernel("no guest")
class TestBuildrootNone:
    """BUILDROOT=none: the host has all the tools."""

    def test_the_same_parts_as_in_the_root(self, env, host):
        """A Debian host with the packages builds what the root does: the very same parts."""
        result = host("run.sh", "env", BUILDROOT="none", VBW_CACHE=str(env.cache))
        assert result.returncode == 0, result.stderr
        found = dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)
        for name in ("VBW_MODULE", "VBW_QEMU", "VBW_INITRAMFS", "VBW_KERNEL"):
            assert found[name] == os.environ[name]
        assert "not installed here" not in result.stderr
        Path(found["VBW_OUT"]).rmdir()

    def test_host_without_the_kernel_s_source(self, host):
        result = host("kdir.sh", "7.99.1+deb13-amd64", BUILDROOT="none")
        assert complaint(result).endswith(
            "is missing; install linux-headers-7.99.1+deb13-amd64 and linux-source-7.99")

    def test_missing_packages_are_named(self, env, host):
        result = host("run.sh", "true", BUILDROOT="none", VBW_CACHE=str(env.cache),
                      tools={"dpkg-query": "/usr/bin/dpkg-query \"$@\" | sed '/ bison$/d; / flex$/d'"})
        assert "not installed here as packages: bison flex" in result.stderr


@pytest.mark.stock_kernel("no guest")
class TestKdir:
    """A KDIR that does not fit."""

    @pytest.fixture
    def kdir(self, env):
        """The KDIR of the stock kernel."""
        return Path(subprocess.run([env.src / "scripts/kdir.sh", env.release], check=True,
                                   capture_output=True, text=True).stdout.strip())

    def test_compiler_is_too_old(self, env, host):
        """Kconfig turns Rust off then; the message says which compiler it takes."""
        result = host("kdir.sh", env.release, BUILDROOT="none",
                      tools={"rustc": 'case $* in --version | -V) echo "rustc 1.70.0";; *) '
                                      'exec /usr/bin/rustc "$@" | sed s/1.85.1/1.70.0/;; esac'})
        assert re.search(r"Rust is not usable for this kernel: kernel \S+ wants rustc 1\.\S+ .*; "
                         r"here is rustc 1\.70\.0", complaint(result))

    def test_symbols_are_compared(self, env, kdir, folder):
        """One symbol that differs, on either side, is enough."""
        stock = Path("/usr/src") / f"linux-headers-{env.release}"
        headers = folder / stock.name
        headers.mkdir()
        shutil.copy(stock / ".config", headers)
        symvers = (stock / "Module.symvers").read_text()

        def check(text):
            (headers / "Module.symvers").write_text(text)
            return subprocess.run([env.src / "scripts/kdir-fits.sh", "symbols", kdir, headers],
                                  capture_output=True, text=True, check=False)

        assert check(symvers).returncode == 0
        name = re.search(r"\t(_R\w+)\t", symvers).group(1)
        for changed, number in (
                (symvers.replace(f"\t{name}\t", f"\t{name}x\t"), 2),
                (symvers + "0x00000000\t_Rnew\tvmlinux\tEXPORT_SYMBOL_GPL\t\n", 1)):
            assert f"{number} Rust symbols of this tree and of the stock kernel are not the same: " \
                   f"kernel {env.release} wants rustc 1." in complaint(check(changed))

    def test_kernel_without_rust(self, env, kdir, folder):
        """Its own tree, and what is made for it."""
        (folder / ".config").write_text("CONFIG_64BIT=y\n")
        for command, words in (
                (["module.sh", folder], "has no Rust: its kernel was configured without CONFIG_RUST=y"),
                (["kdir-fits.sh", "config", folder, folder], "was built without Rust")):
            result = subprocess.run([env.src / "scripts" / command[0], *command[1:]],
                                    capture_output=True, text=True, check=False)
            assert words in complaint(result)

    def test_headers_without_metadata(self, env, folder):
        """Debian's own, for example."""
        (folder / ".config").write_text("CONFIG_RUST=y\n")
        result = subprocess.run([env.src / "scripts/module.sh", folder],
                                capture_output=True, text=True, check=False)
        assert complaint(result).endswith(
            "has no Rust metadata (rust/libkernel.rmeta); for a Debian kernel: make kdir KERNEL=<release>")
