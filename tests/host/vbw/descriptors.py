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


def images(vm: VM, part: str = "") -> dict[int, tuple[int, int]]:
    """Each descriptor of an image: the file's inode, and the flags it is open with.

    Only of those that have or had the part in their names.
    """
    process = Path(f"/proc/{qemu_pid(vm)}")
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


def synchronous(vm: VM, part: str = "") -> bool | None:
    """Whether QEMU has the images that it writes to open with O_DSYNC; None if there are none.

    Those that have the part in their names have to agree.
    """
    found = {bool(flags & os.O_DSYNC) for _, flags in images(vm, part).values()
             if flags & os.O_ACCMODE == os.O_RDWR}
    assert len(found) < 2, f"some images are open with O_DSYNC, some without: {images(vm)}"
    return found.pop() if found else None
