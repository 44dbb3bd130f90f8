# SPDX-License-Identifier: GPL-2.0
"""What QEMU really has open, as the host's kernel tells it."""

import os
import re
import stat
from pathlib import Path

from .vm import VM

_IMAGE = re.compile(r"\.(img|qcow2)( \(deleted\))?$")


def qemu_pid(vm: VM) -> int:
    """QEMU's process, also when something else has started it."""
    assert vm.process
    pid = vm.process.pid
    while not Path(f"/proc/{pid}/comm").read_text().startswith("qemu-system"):
        pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    return pid


def images(owner: VM | int, part: str = "") -> dict[int, tuple[int, int]]:
    """Each descriptor that a machine's QEMU, or a process, has of an image.

    It has the file's inode, and the flags it is open with. Only of those that have or had the part
    in their names.
    """
    process = Path(f"/proc/{owner if isinstance(owner, int) else qemu_pid(owner)}")
    found = {}
    for link in (process / "fd").iterdir():
        try:
            name, info = os.readlink(link), link.stat()
            text = (process / "fdinfo" / link.name).read_text()
        except FileNotFoundError:
            continue
        if stat.S_ISREG(info.st_mode) and _IMAGE.search(name) and part in name:
            flags = next(line for line in text.splitlines() if line.startswith("flags:"))
            found[int(link.name)] = (info.st_ino, int(flags.split()[1], 8))
    return found


def synchronous(owner: VM | int, part: str = "") -> set[int]:
    """The descriptors with O_DSYNC that an image can be written by.

    Only of the images that have the part in their names.
    """
    return {fd for fd, (_, flags) in images(owner, part).items()
            if flags & os.O_DSYNC and flags & os.O_ACCMODE == os.O_RDWR}
