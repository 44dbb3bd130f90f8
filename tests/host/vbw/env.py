# SPDX-License-Identifier: GPL-2.0
"""What the build side has prepared, as told by the VBW_* environment."""

import os
import re
from dataclasses import dataclass
from pathlib import Path


class NotPrepared(Exception):
    """Something that the build side should have made is not there."""


@dataclass(frozen=True)
class Env:
    """The parts that a virtual machine is made of."""

    src: Path
    cache: Path
    qemu: Path
    qemu_stock: Path
    kernel: Path
    release: str
    module: Path
    initramfs: Path
    out: Path
    accel: str
    debug: bool
    # Empty where nobody has asked for them.
    testdev: str = ""
    root_disk: str = ""
    # The kernels of scripts/intree.sh, if the guests have one of these.
    intree: Path | None = None
    # The plugin by which scripts/coverage.sh sees what is executed.
    coverage: Path | None = None

    @property
    def patience(self) -> int:
        """By how much longer than with the stock kernel to wait for a guest."""
        return 3 if self.debug or self.intree else 1


def _path(name: str) -> Path:
    value = os.environ.get(name)
    if not value:
        raise NotPrepared(f"{name} is not set: start this by scripts/run.sh, which sets it")
    path = Path(value)
    if not path.exists():
        raise NotPrepared(f"{name}={value} does not exist")
    return path


def _choose_accel() -> str:
    """KVM only where it can work: /dev/kvm may exist and open without that."""
    choice = os.environ.get("ACCEL")
    if choice:
        return choice
    flags = re.search(r"^flags\s*:.*$", Path("/proc/cpuinfo").read_text(), re.M)
    virtual = flags and re.search(r"\b(svm|vmx)\b", flags.group())
    return "kvm" if virtual and os.access("/dev/kvm", os.R_OK | os.W_OK) else "tcg"


def may_mount() -> bool:
    """Whether this user may have a file system in user space."""
    return os.access("/dev/fuse", os.R_OK | os.W_OK)


def has_other_users() -> bool:
    """Whether there is a user "nobody" beside root: not in the namespace of an ordinary user."""
    return int(Path("/proc/self/uid_map").read_text().split()[2]) > 65534


def is_debug() -> bool:
    """Whether the guests' kernel is the debug kernel."""
    return bool(os.environ.get("VBW_DEBUG"))


def is_intree() -> bool:
    """Whether it has the driver in its own tree."""
    return bool(os.environ.get("VBW_INTREE"))


def load() -> Env:
    """Read the environment, or raise NotPrepared with what is missing."""
    return Env(
        src=_path("VBW_SRC"),
        cache=_path("VBW_CACHE"),
        qemu=_path("VBW_QEMU"),
        qemu_stock=_path("VBW_QEMU_STOCK"),
        kernel=_path("VBW_KERNEL"),
        release=os.environ.get("VBW_RELEASE", ""),
        module=_path("VBW_MODULE"),
        initramfs=_path("VBW_INITRAMFS"),
        out=_path("VBW_OUT"),
        accel=_choose_accel(),
        debug=is_debug(),
        root_disk=os.environ.get("VBW_ROOT_DISK", ""),
        testdev=os.environ.get("VBW_TESTDEV", ""),
        intree=_path("VBW_INTREE") if is_intree() else None,
        coverage=_path("VBW_COVERAGE") if os.environ.get("VBW_COVERAGE") else None,
    )
