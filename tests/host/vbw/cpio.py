# SPDX-License-Identifier: GPL-2.0
"""Write a cpio archive as the kernel unpacks it (the "newc" format)."""

import stat
from pathlib import Path


class Archive:
    """An archive in memory, made file by file."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._inode = 0
        self._folders: set[str] = set()

    def _entry(self, name: str, mode: int, content: bytes) -> None:
        self._inode += 1
        raw_name = name.encode() + b"\0"
        fields = (
            self._inode, mode, 0, 0, 1, 0, len(content),
            0, 0, 0, 0, len(raw_name), 0,
        )
        self._data += b"070701" + b"".join(b"%08X" % field for field in fields) + raw_name
        self._pad()
        self._data += content
        self._pad()

    def _pad(self) -> None:
        self._data += bytes(-len(self._data) % 4)

    def _folder(self, name: str) -> None:
        if name in ("", ".") or name in self._folders:
            return
        self._folder(str(Path(name).parent))
        self._folders.add(name)
        self._entry(name, stat.S_IFDIR | 0o755, b"")

    def add(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """Add a file, and the folders above it."""
        self._folder(str(Path(name).parent))
        self._entry(name, stat.S_IFREG | mode, content)

    def finish(self) -> bytes:
        """The whole archive, with its trailer."""
        self._entry("TRAILER!!!", 0, b"")
        return bytes(self._data)
