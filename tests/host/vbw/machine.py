# SPDX-License-Identifier: GPL-2.0
"""What a virtual machine is made of, and QEMU's command line for it."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .env import Env

# How a virtio-blk device is attached: QEMU's device, and its properties.
TRANSPORTS: dict[str, tuple[str, dict[str, Any]]] = {
    "pci-modern": ("virtio-blk-pci", {"disable-legacy": "on"}),
    "pci-transitional": ("virtio-blk-pci", {"disable-legacy": "off", "disable-modern": False}),
    "pci-legacy": ("virtio-blk-pci", {"disable-legacy": "off", "disable-modern": True}),
    "mmio": ("virtio-blk-device", {}),
}

MACHINES = {
    "q35": "q35",
    "pc": "pc",
    "microvm": "microvm,acpi=on,pcie=on,rtc=on",
}

AGENT_PORT = "vbw.agent"
KERNEL_LOG_PORT = "vbw.kmsg"


def _device(**props: Any) -> list[str]:
    return ["-device", json.dumps(props)]


def file_node(image: Path, **more: Any) -> dict[str, Any]:
    """A block node for an image file, opened the way that strace can follow."""
    return {"driver": "file", "filename": str(image), "aio": "threads", **more}


def raw_node(child: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A raw format node on top of a protocol node."""
    return {"driver": "raw", "file": child, **more}


def flush_fails_node(image: Path, once: bool = True, times: int = 1) -> dict[str, Any]:
    """An image whose first flush, or first few flushes, or every flush fails with EIO."""
    rule = {"event": "none", "iotype": "flush", "errno": 5, "once": once}
    return raw_node({"driver": "blkdebug", "image": file_node(image), "inject-error": [rule] * times})


@dataclass
class Disk:
    """One virtio-blk disk: a block node, how it is attached, its properties."""

    node: dict[str, Any]
    transport: str = "pci-modern"
    name: str = "disk0"
    props: dict[str, Any] = field(default_factory=dict)
    read_only: bool = False

    def arguments(self) -> list[str]:
        """QEMU's arguments for the node and the device."""
        node = {**self.node, "node-name": f"{self.name}-node", "read-only": self.read_only}
        driver, transport_props = TRANSPORTS[self.transport]
        return ["-blockdev", json.dumps(node),
                *_device(driver=driver, id=self.name, drive=node["node-name"],
                         **transport_props, **self.props)]


@dataclass
class Config:
    """A machine, before it is started."""

    disks: list[Disk] = field(default_factory=list)
    # One of MACHINES, or any type that QEMU knows.
    machine: str = "q35"
    cpus: int = 2
    memory_mb: int = 512
    stock_qemu: bool = False
    kernel_args: str = ""
    extra: list[str] = field(default_factory=list)
    # What the disks need to be there already.
    extra_first: list[str] = field(default_factory=list)
    deadline: float = 300.0
    wrapper: list[str] = field(default_factory=list)
    # Agent and log use serial lines, which go on after the guest was suspended.
    serial: bool = False
    # Another system than the harness's: its initramfs, and the seconds until its agent speaks and
    # that it takes to power off.
    initrd: Path | None = None
    # Another kernel than the environment's, and one that starts from a disk at once.
    kernel: Path | None = None
    without_initrd: bool = False
    start_seconds: float = 60.0
    end_seconds: float = 20.0
    # A thread of the host for each processor that is emulated.
    parallel: bool = False
    # What the guest's kernel may complain of in this machine: a regular expression.
    tolerated: str = r"(?!)"


def _host_khz() -> int:
    """The host's clock rate, which is what a guest's time stamp counter runs at.

    A guest that is emulated on a busy host can't measure its counter by its other
    clocks, of which a microvm hardly has any; what it gets wrong, or not at all,
    can make it hang while it starts: tell it.
    """
    match = re.search(r"^cpu MHz\s*: ([\d.]+)", Path("/proc/cpuinfo").read_text(), re.M)
    return round(float(match.group(1)) * 1000) if match else 2_000_000


def _logged(files: "Files", serial: bool) -> list[str]:
    """The console in a file, QEMU's monitor and the guest's agent on sockets."""
    if serial:
        ports = ["-serial", "chardev:agent", "-serial", "chardev:kmsg"]
    else:
        ports = [
            *_device(driver="virtio-serial-pci"),
            *_device(driver="virtserialport", chardev="agent", name=AGENT_PORT),
            *_device(driver="virtserialport", chardev="kmsg", name=KERNEL_LOG_PORT),
        ]
    return [
        "-chardev", f"file,id=console,path={files.console}",
        "-serial", "chardev:console",
        "-chardev", f"socket,id=monitor,fd={files.monitor_fd}",
        "-mon", "chardev=monitor,mode=control",
        "-chardev", f"socket,id=agent,fd={files.agent_fd}",
        "-chardev", f"file,id=kmsg,path={files.kmsg}",
        *ports,
    ]


def covered(plugin: Path, out: Path) -> list[str]:
    """Arguments that have scripts/plugin/cover.c say which code is executed where modules are."""
    return ["-plugin", f"{plugin},out={out},from=ffffffffa0000000,to=ffffffffff000000"]


def command_line(env: Env, config: Config, initrd: Path, files: "Files | None") -> list[str]:
    """QEMU's whole command line. Without files, the console is the terminal."""
    folder = env.qemu_stock if config.stock_qemu else env.qemu
    # One thread for all of the guest's CPUs: with more, a CPU can execute the int3 of
    # code that the kernel is patching after the kernel has put the new code there, and
    # the kernel, which on real processors never sees that, gives up. It costs nothing
    # where tests run two machines on two processors.
    threads = "multi" if config.parallel else "single"
    accel = f"tcg,thread={threads}" if env.accel == "tcg" else env.accel
    # The kernel's tests of its own ciphers are a second of a start of four, when emulated.
    kernel_args = "console=ttyS0 loglevel=5 panic=-1 cryptomgr.notests " + config.kernel_args
    if config.serial:
        # The kernel takes the jump of the counter while it is suspended for a defect of it.
        kernel_args += " vbw.serial tsc=reliable"
    if env.accel == "tcg":
        # An emulated guest on a busy host can miss the few ticks by which the kernel finds out
        # whether its timer works at all.
        kernel_args += " no_timer_check"
        if "tsc_early_khz=" not in kernel_args:
            kernel_args += f" tsc_early_khz={_host_khz()}"
    if env.debug:
        # More than the first report of KASAN, for the tests that come later in this machine;
        # and of the kernel's unit tests only ours.
        kernel_args += " kasan_multi_shot kunit.filter_glob=virtio_blk_wce*"
    command = [
        *config.wrapper,
        str(folder / "qemu-system-x86_64"),
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-L", "/usr/share/qemu", "-L", "/usr/share/seabios",
        "-machine", MACHINES.get(config.machine, config.machine),
        "-accel", accel,
        "-cpu", "host" if env.accel == "kvm" else "qemu64",
        "-smp", str(config.cpus),
        "-m", str(config.memory_mb),
        "-kernel", str(config.kernel or env.kernel),
        *([] if config.without_initrd else ["-initrd", str(initrd)]),
        "-append", kernel_args.strip(),
        *(_logged(files, config.serial) if files else ["-serial", "mon:stdio"]),
    ]
    if not config.stock_qemu:
        # It is off unless somebody asks for it. A disk's own properties win.
        command += ["-global", "virtio-blk-device.set-wce=on", "-global", "vhost-user-blk.set-wce=on"]
    if env.coverage and files:
        command += covered(env.coverage, files.kmsg.with_name("covered"))
    command += config.extra_first
    for disk in config.disks:
        command += disk.arguments()
    return command + config.extra


@dataclass
class Files:
    """Where a machine's output goes, and the sockets it is born with."""

    console: Path
    kmsg: Path
    monitor_fd: int
    agent_fd: int
