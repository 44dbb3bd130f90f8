# SPDX-License-Identifier: GPL-2.0
"""The guest's initramfs: the base that is kept, and what this run adds to it."""

import hashlib
import os
from pathlib import Path

from . import cpio
from .env import Env

_SCRIPTS = ("*.sh", "init")


def build(env: Env) -> Path:
    """Make the archive (once for all machines of a run) and return its path."""
    guest = env.src / "tests" / "guest"
    archive = cpio.Archive()
    for pattern in _SCRIPTS:
        for path in sorted(guest.glob(pattern)):
            name = "init" if path.name == "init" else f"vbw/{path.name}"
            archive.add(name, path.read_bytes(), 0o755)
    archive.add("vbw/virtio_blk_wce.ko", env.module.read_bytes())
    extra = archive.finish()

    key = hashlib.sha256(str(env.initramfs).encode() + extra).hexdigest()[:16]
    result = env.out / f"initrd-{key}.cpio"
    if not result.exists():
        part = env.out / f"initrd-{key}.{os.getpid()}"
        base = env.initramfs.read_bytes()
        part.write_bytes(base + bytes(-len(base) % 4) + extra)
        part.rename(result)
    return result
