# SPDX-License-Identifier: GPL-2.0
"""The guest's initramfs: the base that is kept, and what this state of the tree adds."""

import contextlib
import hashlib
import os
import time
from pathlib import Path

from . import cpio
from .env import Env

_SCRIPTS = ("*.sh", "agent", "init")
_KEEP_SECONDS = 3600


def build(env: Env) -> Path:
    """Make the archive, unless it is in the cache, and return its path."""
    guest = env.src / "tests" / "guest"
    archive = cpio.Archive()
    for pattern in _SCRIPTS:
        for path in sorted(guest.glob(pattern)):
            name = "init" if path.name == "init" else f"vbw/{path.name}"
            archive.add(name, path.read_bytes(), 0o755)
    archive.add("vbw/virtio_blk_wce.ko", env.module.read_bytes())
    extra = archive.finish()

    folder = env.cache / "initrd"
    folder.mkdir(exist_ok=True)
    key = hashlib.sha256(str(env.initramfs).encode() + extra).hexdigest()[:16]
    result = folder / f"{key}.cpio"
    try:
        os.utime(result)
    except FileNotFoundError:
        part = folder / f"{key}.{os.getpid()}"
        base = env.initramfs.read_bytes()
        part.write_bytes(base + bytes(-len(base) % 4) + extra)
        part.rename(result)
        _prune(folder)
    return result


def _prune(folder: Path) -> None:
    """Remove what no machine can be starting with any more."""
    for path in folder.iterdir():
        # Somebody else may be making one, which gets another name, or doing the same as we.
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _KEEP_SECONDS:
                path.unlink()
