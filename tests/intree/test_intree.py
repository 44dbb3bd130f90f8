# SPDX-License-Identifier: GPL-2.0
"""The driver in the kernel's own tree, built in and as a module: what scripts/intree.sh has built is booted."""

import itertools
import re
import shutil
import subprocess

import pytest

from vbw import cpio, debian, initrd
from vbw.machine import Config, Disk, file_node, raw_node
from vbw.vm import OURS

KUNIT = "/sys/kernel/debug/kunit"
EXAMPLE = re.compile(r"^ *//[/!] ```\n(?: *//[/!].*\n)*? *//[/!] ```\n", re.M)
COLLECTION = "drivers/block/virtio_blk_wce"
SCRIPTS = ("probe.sh", "switch.sh", "io.sh", "switch-load.sh", "module.sh")
MODES = ("write through", "write back")
# Of all that KUnit runs while a kernel starts, what a test is about; the examples have much to say.
OURS_ALONE = f"kunit.filter_glob={OURS}*"
EXAMPLES = "log_buf_len=4M kunit.filter_glob=rust_doctests_kernel"


def unit_tests(env):
    """{suite: its tests}, as the driver's sources have them."""
    suites = {}
    for path in sorted((env.src / "drivers/block/virtio_blk_wce").glob("*.rs")):
        text = path.read_text()
        suite = re.search(r"kunit_tests\((\w+)\)", text)
        if suite:
            suites[suite.group(1)] = re.findall(r"#\[test\]\s+fn (\w+)\(", text)
    return suites


def examples(env):
    """{file of the kernel's tree: how many examples it has} of the layer."""
    folder = env.src / "rust/kernel"
    found = {}
    for path in sorted(folder.rglob("*.rs")):
        number = len(EXAMPLE.findall(path.read_text()))
        name = str(path.relative_to(folder)).replace("block/mq.rs", "block/multi_queue.rs")
        if number and name not in ("kernel_ext.rs", "block.rs", "sync.rs"):
            found[f"rust/kernel/{name}"] = number
    return found


@pytest.fixture
def builtin(env, boot):
    """Start the kernel that the driver is built in."""

    def start(disks, **more):
        return boot(Config(disks=disks, kernel=env.intree / "builtin/vmlinuz", **more), driver=None)

    return start


def test_unit_tests(env, builtin, disk):
    """KUnit has run each suite that the sources have while the kernel started, and all tests pass."""
    suites = unit_tests(env)
    assert len(suites) >= 5
    vm = builtin([disk()], kernel_args=OURS_ALONE)
    for suite, tests in suites.items():
        results = vm.guest(f"cat {KUNIT}/{suite}/results")
        assert tests and re.findall(r"^ +ok \d+ (\w+)$", results, re.M) == tests, results
        assert re.search(rf"^ok \d+ {suite}$", results, re.M), results


def test_examples_run(env, builtin, disk):
    """The examples of the layer's documentation are tests there, each of them is run, and all pass."""
    expected = examples(env)
    assert len(expected) >= 10, expected
    # Two of the kernel's own examples have a timer on the stack, which is to be said of it.
    vm = builtin([disk()], kernel_args=EXAMPLES, tolerated="is on stack .* NOT annotated|at debug_object_is_on_stack")
    vm.wait_for_log("read")
    found = dict.fromkeys(expected, 0)
    location = None
    for line in vm.kernel_log():
        place = re.match(r" +# rust_doctest_kernel_\w+\.location: (\S+):\d+$", line.text)
        result = re.match(r" +(not )?ok \d+ rust_doctest_kernel_\w+", line.text)
        if place:
            location = place.group(1)
        elif result:
            assert not result.group(1), line
            if location in found:
                found[location] += 1
    assert found == expected
    results = vm.guest(f"grep -E '^(not )?ok ' {KUNIT}/rust_doctests_kernel/results")
    assert re.fullmatch(r"ok \d+ rust_doctests_kernel", results)


def test_parameters(builtin, disk):
    """They are known by the driver's name, and are in sysfs as those of a module."""
    vm = builtin([disk()], kernel_args=f"{OURS}.queue_depth=16 {OURS_ALONE}")
    assert vm.guest("cat /sys/block/vda/mq/0/nr_tags") == "16"
    assert vm.guest(f"cd /sys/module/{OURS}/parameters; stat -c '%n %a' *").splitlines() == [
        "num_request_queues 644", "poll_queues 644", "queue_depth 444"]
    assert vm.guest(f"grep -c {OURS} /proc/modules || :") == "0"


def system(env, folder):
    """The harness's guest as files of a disk."""
    tree = folder / "tree"
    for name in ("vbw", "srv"):
        (tree / name).mkdir(parents=True)
    with env.initramfs.open("rb") as archive:
        subprocess.run(["cpio", "--extract", "--make-directories", "--quiet"], stdin=archive, cwd=tree, check=True)
    for path in (env.src / "tests/guest").glob("*"):
        if path.name == "init":
            shutil.copy(path, tree / "init")
            (tree / "init").chmod(0o755)
        elif path.is_file():
            shutil.copy(path, tree / "vbw")
    return tree


def test_root_on_the_disk(env, builtin, folder):
    """It starts from its disk with nothing before it, and works there while the mode is switched."""
    tree, image = system(env, folder), folder / "root.img"
    subprocess.run(["mkfs.ext4", "-q", "-d", tree, image, "256M"], check=True)
    shutil.rmtree(tree)
    vm = builtin([Disk(raw_node(file_node(image)))], without_initrd=True,
                 kernel_args=f"root=/dev/vda rw init=/init {OURS_ALONE}")
    assert vm.guest("grep ' / ext4 ' /proc/mounts").split()[:3] == ["/dev/root", "/", "ext4"]
    assert vm.guest("cat /proc/cmdline").count("initrd") == 0
    assert vm.guest("basename $(readlink /sys/block/vda/device/driver)") == OURS

    job = vm.guest.start("fio --name=day --directory=/srv --size=16m --rw=randwrite --bs=4k --direct=1 "
                         "--ioengine=libaio --iodepth=8 --fsync=64 --verify=crc32c --end_fsync=1")
    switches = 0
    for mode in itertools.cycle(MODES):
        vm.guest(f"echo '{mode}' > /sys/block/vda/cache_type")
        assert vm.guest("cat /sys/block/vda/cache_type") == mode == vm.host_mode()
        switches += 1
        if switches >= 8 and mode == MODES[-1] and not job.running():
            break
    done = job.wait()
    assert done.status == 0, done.text
    vm.guest("echo it was here > /srv/proof; sync; mount -o remount,ro /")
    vm.finish()
    debian.check_disk(image)
    debian.take_out(image, "srv/proof", folder / "proof")
    assert (folder / "proof").read_text() == "it was here\n"
    image.unlink()


@pytest.fixture
def kselftest(env, folder, boot, disk):
    """The kernel with the module, kselftest's installation, and a disk; runs the collection."""
    archive = cpio.Archive()
    installed = env.intree / "kselftest"
    for path in sorted(installed.rglob("*")):
        if path.is_file():
            archive.add(f"kselftest/{path.relative_to(installed)}", path.read_bytes(), path.stat().st_mode & 0o777)
    release = f"lib/modules/{env.release}/kernel/drivers/block/{OURS}/{OURS}.ko"
    archive.add(release, env.module.read_bytes())
    base = initrd.build(env).read_bytes()
    path = folder / "initrd"
    path.write_bytes(base + bytes(-len(base) % 4) + archive.finish())
    vm = boot(Config(disks=[disk()], initrd=path, kernel_args=OURS_ALONE))
    path.unlink()

    def run(environ):
        # The runner writes by a name that udev makes elsewhere.
        output = vm.guest("ln -sf /proc/self/fd/1 /dev/stdout; cd /kselftest && "
                          f"{environ} ./run_kselftest.sh -c {COLLECTION}", 600)
        (folder / "ktap").write_text(output + "\n")
        return output

    return run


def test_kselftest(env, kselftest):
    """kselftest's own runner runs the guest's scripts, all of their tests, and none fails or is left out."""
    names = {script: re.sub(r"\W", "_", script).upper() for script in SCRIPTS}
    output = kselftest(" ".join(f"KSELFTEST_{name}_ARGS=/dev/vda" for name in names.values()))
    assert re.findall(r"^(?:not )?ok .*", output, re.M) == [
        f"ok {number} selftests: {COLLECTION}: {script}" for number, script in enumerate(SCRIPTS, 1)]
    tests = [name for script in SCRIPTS
             for name in re.findall(r"^test_(\w+)\(\)$", (env.src / "tests/guest" / script).read_text(), re.M)]
    assert len(tests) > 30
    assert re.findall(r"^# (?:not )?ok \d+ (.*)$", output, re.M) == tests


def test_kselftest_without_a_disk(kselftest):
    """Nobody's disk is overwritten by who runs all that kselftest has: the scripts are skipped."""
    assert re.findall(r"^(?:not )?ok .*", kselftest(""), re.M) == [
        f"ok {number} selftests: {COLLECTION}: {script} # SKIP" for number, script in enumerate(SCRIPTS, 1)]
