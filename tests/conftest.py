# SPDX-License-Identifier: GPL-2.0
"""Fixtures for tests that need a virtual machine, and the collector of guest scripts."""

import os
import re
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vbw import env as vbw_env
from vbw.env import Env
from vbw.guest_items import FIRST_LINES, GuestScript
from vbw.machine import Config, Disk, file_node, raw_node
from vbw.nbd import NbdServer, nbd_server
from vbw.testdev import TestDevice
from vbw.vm import OURS, VM

# What asks for the checks that only the debug kernel has, and for kernels with the driver in their own tree.
collect_ignore = ["debug"] * (not vbw_env.is_debug()) + ["intree"] * (not vbw_env.is_intree())

VMS = pytest.StashKey[list[VM]]()
FOLDER = pytest.StashKey[Path]()
MIB = 1 << 20


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Every script of the guest, but the library, is a file of tests."""
    wanted = file_path.parent.name == "guest" or parent.session.isinitpath(file_path)
    if wanted and file_path.suffix == ".sh" and file_path.name != "lib.sh":
        return GuestScript.from_parent(parent, path=file_path)
    return None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How long a guest took from QEMU's start to its first line of test output."""
    record = Path(os.environ.get("VBW_OUT", ".")) / FIRST_LINES
    if record.exists() and not os.environ.get("PYTEST_XDIST_WORKER"):
        seconds = sorted(float(line) for line in record.read_text().split())
        terminalreporter.write_line(
            f"guest start to first test line: {statistics.median(seconds):.1f} s "
            f"(median of {len(seconds)}; {seconds[0]:.1f} to {seconds[-1]:.1f} s)")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """On the debug kernel, or on another one of Debian's, leave out what says that it is not for that."""
    marker = item.get_closest_marker("stock_kernel")
    if marker and vbw_env.is_debug():
        pytest.skip(f"stock kernel only: {marker.args[0]}")
    marker = item.get_closest_marker("pinned_kernel")
    if marker and os.environ.get("VBW_KERNEL_RELEASE"):
        pytest.skip(f"pinned kernel only: {marker.args[0]}")


@pytest.fixture(scope="session")
def env() -> Env:
    """What the build side has made."""
    return vbw_env.load()


@pytest.fixture
def folder(env: Env, request: pytest.FixtureRequest) -> Path:
    """A folder for the test's logs and images."""
    name = re.sub(r"[^\w.=-]+", "_", request.node.nodeid.removeprefix("host/"))
    path = env.out / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    request.node.stash[FOLDER] = path
    return path


@pytest.fixture
def image(folder: Path) -> Iterator[Path]:
    """An empty disk image of 64 MiB; it goes when the test has ended."""
    path = folder / "disk.img"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def nbd(image: Path) -> Iterator[NbdServer]:
    """An NBD server of the image, not started yet."""
    with nbd_server(image) as server:
        yield server


@pytest.fixture
def boot(env: Env, folder: Path, request: pytest.FixtureRequest) -> Callable[..., VM]:
    """Start machines; when the test has run they are ended and their logs checked."""
    vms = request.node.stash.setdefault(VMS, [])

    def start(config: Config, driver: str | None = OURS, params: str = "",
              incoming: bool = False) -> VM:
        """With incoming, the guest comes from another machine and brings its driver."""
        vm = VM(env, config, folder / f"vm{len(vms)}")
        vms.append(vm)
        if incoming:
            return vm.launch()
        vm.start()
        if driver:
            vm.load(driver, params)
        return vm

    return start


@pytest.fixture
def disk(image: Path) -> Callable[..., Disk]:
    """Make a disk of the test's image, on whatever transport, with properties."""

    def make(transport: str = "pci-modern", **props: object) -> Disk:
        read_only = bool(props.pop("read_only", False))
        return Disk(raw_node(file_node(image)), transport, props=props, read_only=read_only)

    return make


@pytest.fixture
def testdev(env: Env, folder: Path) -> Iterator[Callable[..., TestDevice]]:
    """Start test devices, with their options; they end after the test's machines."""
    devices: list[TestDevice] = []
    with tempfile.TemporaryDirectory(prefix="vbw-") as sockets:

        def start(*options: str, queues: int = 1) -> TestDevice:
            device = TestDevice(env, Path(sockets), folder, f"testdev{len(devices)}", *options,
                                queues=queues)
            devices.append(device)
            return device

        yield start
        for device in devices:
            device.end()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """A complaint in a guest's kernel log fails the test, not its clean-up."""
    vms = pyfuncitem.stash.setdefault(VMS, [])
    try:
        result = yield
    except BaseException as error:
        for vm in vms:
            for complaint in vm.abandon():
                error.add_note(complaint)
        raise
    try:
        for vm in vms:
            vm.finish()
        for vm in vms:
            vm.check_log()
    finally:
        for vm in vms:
            vm.kill()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[pytest.TestReport]:
    """Name the folder with a failed test's logs."""
    report = yield
    if report.failed and FOLDER in item.stash:
        report.sections.append(("logs", str(item.stash[FOLDER])))
    return report
