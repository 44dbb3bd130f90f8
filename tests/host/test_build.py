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

    def run(script, *args, uid=0, files=None, hidden=(), tools=(), only_tools=False, **environment):
        binds = ["--ro-bind", "/dev/null", "/etc/vbw-root"]
        for name, text in (files or {}).items():
            place = folder / name.replace("/", "_")
            place.write_text(text)
            binds += ["--ro-bind", str(place), name]
        if hidden:
            binds += ["--overlay-src", "/usr", "--tmp-overlay", "/usr"]
        tool_folder = folder / "tools"
        tool_folder.mkdir(exist_ok=True)
        for name, text in dict(tools).items():
            (tool_folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (tool_folder / name).chmod(0o755)
        path = f"{tool_folder}" if only_tools else f"{tool_folder}:{os.environ['PATH']}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("VBW_")}
        result = subprocess.run(
            ["/usr/bin/bwrap", "--unshare-user", "--uid", str(uid), "--gid", str(uid), "--dev-bind", "/", "/",
             *binds, "/usr/bin/sh", "-ec", f'/usr/bin/rm -f {" ".join(hidden)}; exec "$0" "$@"', str(env.src / "scripts" / script),
             *args],
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
        tools = {name: f'exec /usr/bin/{name} "$@"' for name in ("cut", "dirname", "date", "id")}
        result = host("buildroot.sh", uid=USER, tools=tools, only_tools=True)
        assert "has no apt-get; install them, or use BUILDROOT=none" in complaint(result)


@pytest.mark.stock_kernel("no guest")
@pytest.mark.pinned_kernel("the build root has the headers of one")
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
@pytest.mark.pinned_kernel("the build root has the headers of one")
class TestKdir:
    """A KDIR that does not fit."""

    @pytest.fixture
    def kdir(self, env):
        """The KDIR of the stock kernel."""
        return Path(subprocess.run([env.src / "scripts/kdir.sh", env.release], check=True,
                                   capture_output=True, text=True).stdout.strip())

    def test_compiler_is_another(self, env, host):
        """Its version is compared before anything is unpacked."""
        result = host("kdir.sh", env.release, BUILDROOT="none",
                      tools={"rustc": 'case $* in --version | -V) echo "rustc 1.70.0";; *) '
                                      'exec /usr/bin/rustc "$@";; esac'})
        assert re.search(r"kernel \S+ wants rustc 1\.\S+ .*; here is rustc 1\.70\.0 \(package rustc\)$",
                         complaint(result))
        assert "unpacking" not in result.stderr

    def test_source_is_another_version(self, env, host):
        """A point release came, and linux-source was not upgraded with the headers."""
        release = "7.3.99+deb13-cloud-amd64"
        headers = f"/usr/src/linux-headers-{env.release}"
        result = host("kernel-needs.sh", "source", release, headers, "/usr/src/linux-source-7.3.tar.xz")
        assert re.search(r"linux-source-7.3.tar.xz is Linux 7\.3\.\d+, the headers are of 7\.3\.99; "
                         r"install linux-source-7.3 of that version$", complaint(result))

    @pytest.mark.parametrize("hidden, words", [
        ("/usr/bin/bindgen", "bindgen is missing here; install the package bindgen"),
        ("/usr/lib/*/libclang*.so* /usr/lib/llvm-*/lib/libclang*.so*", "bindgen finds no libclang here; install the package libclang-dev"),
        ("/usr/bin/pahole", "pahole is missing here; install the package pahole"),
        ("/usr/include/gelf.h", "gelf.h is missing here; install the package libelf-dev"),
        ("/usr/include/openssl/opensslv.h", "openssl/opensslv.h is missing here; install the package libssl-dev"),
    ])
    def test_tool_is_missing(self, env, host, hidden, words):
        """The first that is, by name and package, and before anything is unpacked."""
        assert all(list(Path("/").glob(pattern[1:])) for pattern in hidden.split())
        result = host("kdir.sh", env.release, BUILDROOT="none", hidden=[hidden])
        assert complaint(result).endswith(words)
        assert "unpacking" not in result.stderr

    def test_tool_changes_the_configuration(self, env, kdir, folder):
        """Kconfig drops what it finds no tool for; the module would misread the kernel's structures."""
        headers = Path("/usr/src") / f"linux-headers-{env.release}"
        text = (kdir / ".config").read_text()

        def check(text):
            (folder / ".config").write_text(text)
            return subprocess.run([env.src / "scripts/kdir-fits.sh", "config", folder, headers],
                                  capture_output=True, text=True, check=False)

        assert check(text).returncode == 0
        assert "CONFIG_PAHOLE_VERSION=" in text and "CONFIG_PAHOLE_HAS_LANG_EXCLUDE=y" in text
        assert check(text.replace("CONFIG_PAHOLE_VERSION=1", "CONFIG_PAHOLE_VERSION=2")).returncode == 0
        assert check(text.replace("CONFIG_PAHOLE_HAS_LANG_EXCLUDE=y\n", "")).returncode == 0
        assert "CONFIG_DEBUG_INFO_BTF=y" in text
        assert complaint(check(text.replace("CONFIG_DEBUG_INFO_BTF=y\n", ""))).endswith(
            "by other tools or another linux-source: CONFIG_DEBUG_INFO_BTF")

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
                   f"kernel {env.release} was built from another source than linux-source here" in complaint(check(changed))

    @pytest.fixture
    def copy(self, kdir, folder):
        """A KDIR that can be changed: what a build looks at first, and links to the rest."""
        tree = folder / "kdir"
        tree.mkdir()
        for path in kdir.iterdir():
            if path.name not in (".config", "rust", "include"):
                (tree / path.name).symlink_to(path)
        shutil.copy(kdir / ".config", tree)
        shutil.copytree(kdir / "rust", tree / "rust")
        shutil.copytree(kdir / "include/config", tree / "include/config")
        for path in (kdir / "include").iterdir():
            if path.name != "config":
                (tree / "include" / path.name).symlink_to(path)
        yield tree
        shutil.rmtree(tree)

    @staticmethod
    def module(env, tree):
        """Build the driver against it; nothing is compiled when it can be told that this fails."""
        result = subprocess.run([env.src / "scripts/module.sh", tree], capture_output=True, text=True, check=False)
        assert "compiling" not in result.stderr
        return result

    def test_tree_too_old(self, env, copy):
        (copy / "include/config/kernel.release").write_text("6.18.3-custom\n")
        assert complaint(self.module(env, copy)).endswith(
            "kernel 6.18.3-custom is too old: the driver needs the Rust abstractions of Linux 7.2 or later")

    def test_tree_of_another_configuration(self, env, copy):
        text = (copy / ".config").read_text()
        (copy / ".config").write_text(text.replace("CONFIG_VIRTIO=y\n", "").replace("CONFIG_RUST=y\n", ""))
        assert complaint(self.module(env, copy)).endswith(
            "was configured without CONFIG_RUST CONFIG_VIRTIO, which the driver needs")

    @pytest.mark.parametrize("name", ["libmacros.so", "libkernel.rmeta", "libbindings.rmeta", "libcore.rmeta"])
    def test_tree_without_a_crate(self, env, copy, name):
        (copy / "rust" / name).unlink()
        said = complaint(self.module(env, copy))
        assert f"rust/{name} is missing" in said or f"has no Rust metadata (rust/{name})" in said
        assert "make kdir KERNEL=<release>" in said

    @pytest.mark.parametrize("name", ["libmacros.so", "libkernel.rmeta", "libbindings.rmeta"])
    def test_tree_with_another_compiler_s_crate(self, env, copy, name):
        path = copy / "rust" / name
        path.write_bytes(path.read_bytes().replace(b"1.85.1 (", b"1.84.0 ("))
        assert re.search(rf"rust/{re.escape(name)} is not of this rustc 1\.85\.1 .*; make the tree again",
                         complaint(self.module(env, copy)))

    def test_tree_with_another_build_s_crate(self, env, copy):
        """The same compiler made it, from something else, so only rustc can tell."""
        path = copy / "rust/libuapi.rmeta"
        path.write_bytes((copy / "rust/libffi.rmeta").read_bytes())
        assert re.search(r"the parts of \S+/rust are not of one build \(error.*\); make the tree again",
                         complaint(self.module(env, copy)))

    def test_tree_not_prepared(self, env, copy):
        (copy / "include/generated").unlink()
        assert "/include/generated/autoconf.h is missing; make the tree again" in complaint(self.module(env, copy))

    def test_tree_that_is_whole(self, env, copy):
        """What all these fail with is what was changed, and not the copy."""
        subprocess.run([env.src / "scripts/kernel-needs.sh", "kdir", copy], check=True)

    def test_kernel_without_rust(self, env, kdir, folder):
        """Its own tree, and what is made for it."""
        (folder / ".config").write_text("CONFIG_64BIT=y\n")
        (folder / "Module.symvers").write_text("")
        (folder / "include/config").mkdir(parents=True)
        (folder / "include/config/kernel.release").write_text("7.3.4\n")
        for command, words in (
                (["kernel-needs.sh", "kdir", folder], "kernel 7.3.4 was configured without CONFIG_MODULES CONFIG_RUST"),
                (["kernel-needs.sh", "source", env.release, folder, folder],
                 f"kernel {env.release} was configured without CONFIG_MODULES CONFIG_RUST")):
            result = subprocess.run([env.src / "scripts" / command[0], *command[1:]],
                                    capture_output=True, text=True, check=False)
            assert words in complaint(result)

    def test_headers_without_metadata(self, env, folder):
        """Debian's own, for example."""
        headers = Path("/usr/src") / f"linux-headers-{env.release}"
        shutil.copytree(headers / "include/config", folder / "include/config")
        shutil.copy(headers / ".config", folder)
        result = subprocess.run([env.src / "scripts/module.sh", folder],
                                capture_output=True, text=True, check=False)
        assert complaint(result).endswith(
            "has no Rust metadata (rust/libkernel.rmeta); for a Debian kernel: make kdir KERNEL=<release>")


class TestPins:
    """The versions that everything is made for."""

    def read(self, text, folder):
        """What a file of pins says."""
        (folder / "pins").write_text(text)
        output = subprocess.run(["bash", "-c", 'set -a; . "$0"; env', folder / "pins"], check=True, capture_output=True,
                                text=True).stdout
        return dict(line.split("=", 1) for line in output.splitlines() if line.startswith("LINUX"))

    def test_one_line_for_a_point_release(self, env, folder):
        """Whatever else names the kernel follows from it."""
        text = (env.src / "scripts/packages/pins").read_text()
        (line,) = re.findall(r"^LINUX=.*$", text, re.M)
        now = self.read(text, folder)
        assert now["LINUX_RELEASE"] == env.release or os.environ.get("VBW_KERNEL_RELEASE") or env.debug
        changed = self.read(text.replace(line, 'LINUX="7.3.12-2~bpo13+1 abc"'), folder)
        assert changed == {"LINUX": "7.3.12-2~bpo13+1 abc", "LINUX_VERSION": "7.3.12-2~bpo13+1",
                           "LINUX_SOURCE_SHA256": "abc", "LINUX_RELEASE": "7.3.12+deb13-cloud-amd64",
                           "LINUX_SOURCE": "linux-source-7.3"}

    def test_flavour_stands_for_a_release(self, env, folder):
        """As KERNEL= takes it: of the version that the build root has."""
        said = subprocess.run(["bash", "-c", '. "$0"; kernel_release rt-amd64; kernel_release 7.3.9+deb13-amd64',
                               env.src / "scripts/lib.sh"], check=True, capture_output=True, text=True).stdout
        version = re.search(r"^LINUX_RELEASE=(.*?)\+", Path("/etc/vbw-root").read_text(), re.M).group(1)
        assert said.split() == [f"{version}+deb13-rt-amd64", "7.3.9+deb13-amd64"]
