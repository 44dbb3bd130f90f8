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


def synchronous(owner: VM | int, part: str = "") -> bool | None:
    """Whether images that are written to are open with O_DSYNC; None if there are none.

    Those that have the part in their names have to agree.
    """
    found = {bool(flags & os.O_DSYNC) for _, flags in images(owner, part).values()
             if flags & os.O_ACCMODE == os.O_RDWR}
    assert len(found) < 2, f"some images are open with O_DSYNC, some without: {images(owner)}"
    return found.pop() if found else None
