# SPDX-License-Identifier: GPL-2.0
"""A FUSE file system whose files are storages that forget: what a write leaves is like a page cache.

It speaks the kernel's protocol (linux/fuse.h, 7.31) itself. The libraries at hand hide the flags of a
write request, which alone tell of an asynchronous direct write that is to be durable; and each is a
loop of its own, so that the order of events would be lost. Durable is a file's content after FSYNC,
and what a direct write with O_DSYNC has written.

A write-back error is as Linux has it: found by whichever FSYNC comes first, reported once to each
open file.
"""

import asyncio
import ctypes
import errno
import os
import random
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .nbd import Delays
from .records import SECTOR
from .storage import Request, Storage

_IN = struct.Struct("<IIQQIIIHH")
_OUT = struct.Struct("<IiQ")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_READ_WRITE_IN = struct.Struct("<QQIIQII")
_FALLOCATE_IN = struct.Struct("<QQQII")

(_LOOKUP, _FORGET, _GETATTR, _SETATTR, _OPEN, _READ, _WRITE, _STATFS, _RELEASE, _FSYNC, _FLUSH, _INIT,
 _INTERRUPT, _DESTROY, _BATCH_FORGET, _FALLOCATE) = (1, 2, 3, 4, 14, 15, 16, 17, 18, 20, 25, 26, 36, 38, 42, 43)
_NO_REPLY = (_FORGET, _INTERRUPT, _BATCH_FORGET)

_ASYNC_READ, _BIG_WRITES, _ASYNC_DIO, _MAX_PAGES = 1, 1 << 5, 1 << 15, 1 << 22
_FATTR_SIZE = 1 << 3
_LARGEST = 1 << 20
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 1, 2, 16
_ROOT = 1
_MNT_DETACH = 2


@dataclass
class Image:
    """A file: its storage, its size, who may open it, and the write-back errors that it has had."""

    storage: Storage
    size: int
    mode: int = 0o600
    errors: int = 0
    # What opening it again fails with, if anything.
    refuse_open: int = 0
    # How often it was opened with O_DSYNC.
    synchronous_opens: int = 0


class FileSystem:
    """Files by name, mounted at a folder, served in the running loop."""

    def __init__(self, mount_point: Path, seed: int, delays: Delays = Delays()) -> None:
        self.images: dict[str, Image] = {}
        self.delays = delays
        self._names: list[str] = []
        self._mount_point = mount_point
        self._random = random.Random(seed)
        self._fd = -1
        # By handle: the file, and how many of its errors that open file has been told of.
        self._open: dict[int, list] = {}
        self._next_handle = 1
        self._loop: asyncio.AbstractEventLoop

    def add(self, name: str, storage: Storage) -> Path:
        """A file; returns its path. Before anybody looks for it."""
        self.images[name] = Image(storage, storage.size)
        self._names.append(name)
        return self._mount_point / name

    async def start(self) -> None:
        """Mount it."""
        self._loop = asyncio.get_running_loop()
        self._mount_point.mkdir()
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        options = f"fd={self._fd},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"prove", os.fsencode(self._mount_point), b"fuse", 0, options.encode()):
            number = ctypes.get_errno()
            raise OSError(number, f"mount: {os.strerror(number)}", str(self._mount_point))
        self._loop.add_reader(self._fd, self._take_requests)

    async def stop(self) -> None:
        """Unmount it."""
        if self._fd < 0:
            return
        libc = ctypes.CDLL(None, use_errno=True)
        libc.umount2(os.fsencode(self._mount_point), _MNT_DETACH)
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1

    # Requests and answers

    def _take_requests(self) -> None:
        while self._fd >= 0:
            try:
                data = os.read(self._fd, _LARGEST + 8192)
            except BlockingIOError:
                return
            except OSError as error:
                # ENOENT: interrupted meanwhile. ENODEV: unmounted.
                if error.errno in (errno.ENOENT, errno.EINTR):
                    continue
                self._loop.remove_reader(self._fd)
                return
            _, opcode, unique, node, *_ = _IN.unpack_from(data)
            if opcode not in _NO_REPLY:
                self._serve(opcode, unique, node, memoryview(data)[_IN.size:])

    def _reply(self, unique: int, error: int = 0, data: bytes = b"") -> None:
        if self._fd < 0:
            return
        try:
            os.write(self._fd, _OUT.pack(_OUT.size + len(data), -error, unique) + data)
        except OSError as failure:
            # ENOENT: whoever asked is gone.
            if failure.errno not in (errno.ENOENT, errno.ENODEV):
                raise

    def _serve(self, opcode: int, unique: int, node: int, body: memoryview) -> None:
        handler: Callable[[int, int, memoryview], None] | None = {
            _INIT: self._init, _LOOKUP: self._lookup, _GETATTR: self._getattr, _SETATTR: self._setattr,
            _OPEN: self._open_file, _READ: self._read, _WRITE: self._write, _FSYNC: self._fsync,
            _FALLOCATE: self._fallocate, _RELEASE: self._release, _STATFS: self._statfs,
            _FLUSH: lambda unique, node, body: self._reply(unique),
            _DESTROY: lambda unique, node, body: self._reply(unique),
        }.get(opcode)
        if handler:
            handler(unique, node, body)
        else:
            self._reply(unique, errno.ENOSYS)

    def _init(self, unique: int, _node: int, body: memoryview) -> None:
        major, minor, readahead, flags = struct.unpack_from("<IIII", body)
        self._reply(unique, 0, struct.pack(
            "<IIIIHHIIHHIIHH20x", 7, min(minor, 36), readahead,
            flags & (_ASYNC_READ | _BIG_WRITES | _ASYNC_DIO | _MAX_PAGES), 64, 48, _LARGEST, 1, _LARGEST // 4096,
            0, 0, 0, 0, 0))

    def _attributes(self, node: int) -> bytes:
        if node == _ROOT:
            mode, size, links = stat.S_IFDIR | 0o755, 0, 2
        else:
            image = self._image(node)
            mode, size, links = stat.S_IFREG | image.mode, image.size, 1
        return _ATTR.pack(node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, links, 0, 0, 0, 4096, 0)

    def _image(self, node: int) -> Image:
        return self.images[self._names[node - _ROOT - 1]]

    def _lookup(self, unique: int, _node: int, body: memoryview) -> None:
        name = bytes(body).rstrip(b"\0").decode()
        if name not in self._names:
            self._reply(unique, errno.ENOENT)
            return
        node = _ROOT + 1 + self._names.index(name)
        self._reply(unique, 0, struct.pack("<QQQQII", node, 0, 3600, 0, 0, 0) + self._attributes(node))

    def _getattr(self, unique: int, node: int, _body: memoryview) -> None:
        self._reply(unique, 0, struct.pack("<QII", 0, 0, 0) + self._attributes(node))

    def _setattr(self, unique: int, node: int, body: memoryview) -> None:
        valid, _, _, size = struct.unpack_from("<IIQQ", body)
        if valid & _FATTR_SIZE and node != _ROOT:
            image = self._image(node)
            if size > image.storage.size:
                self._reply(unique, errno.ENOSPC)
                return
            image.size = size
        self._getattr(unique, node, body)

    def _open_file(self, unique: int, node: int, body: memoryview) -> None:
        image = self._image(node)
        if image.refuse_open:
            self._reply(unique, image.refuse_open)
            return
        if struct.unpack_from("<I", body)[0] & os.O_DSYNC:
            image.synchronous_opens += 1
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        self._open[handle] = [image, image.errors]
        self._reply(unique, 0, struct.pack("<QIi", handle, 0, 0))

    def _release(self, unique: int, _node: int, body: memoryview) -> None:
        self._open.pop(struct.unpack_from("<Q", body)[0], None)
        self._reply(unique)

    def _statfs(self, unique: int, _node: int, _body: memoryview) -> None:
        self._reply(unique, 0, struct.pack("<QQQQQIIII24x", 1 << 20, 1 << 20, 1 << 20, 1, 1, 4096, 255, 4096, 0))

    # What takes time

    def _later(self, request: Request, finish: Callable[[], None]) -> None:
        usual, seldom = self.delays.flush if request.kind == "flush" else self.delays.write
        longest = seldom if self._random.random() < self.delays.seldom else usual
        self._loop.call_later(self._random.random() * longest, finish)

    def _read(self, unique: int, node: int, body: memoryview) -> None:
        image = self._image(node)
        _, offset, size, *_ = _READ_WRITE_IN.unpack_from(body)
        request = image.storage.arrive("read", offset, max(0, min(size, image.size - offset)))
        self._later(request, lambda: self._reply(unique, 0, image.storage.complete(request) or b""))

    def _write(self, unique: int, node: int, body: memoryview) -> None:
        storage = self._image(node).storage
        _, offset, size, _, _, flags, _ = _READ_WRITE_IN.unpack_from(body)
        if offset + size > storage.size:
            self._reply(unique, errno.EFBIG)
            return
        data = bytes(body[_READ_WRITE_IN.size:_READ_WRITE_IN.size + size])
        # What surrounds it in its sectors cannot change meanwhile: the kernel has one such write at a time.
        start, end = offset // SECTOR * SECTOR, -(-(offset + size) // SECTOR) * SECTOR
        if (start, end) != (offset, offset + size):
            data = storage.current[start:offset] + data + storage.current[offset + size:end]
        # A buffered one is followed by an FSYNC, which is what makes it durable.
        durable = bool(flags & os.O_DSYNC and flags & os.O_DIRECT)
        self._change(unique, storage.arrive("write", start, end - start, data, durable), storage,
                     struct.pack("<II", size, 0), bool(flags & os.O_DIRECT))

    def _fallocate(self, unique: int, node: int, body: memoryview) -> None:
        image = self._image(node)
        _, offset, length, mode, _ = _FALLOCATE_IN.unpack_from(body)
        if not mode & (_PUNCH_HOLE | _ZERO_RANGE) or offset % SECTOR or length % SECTOR:
            self._reply(unique, errno.EOPNOTSUPP)
            return
        length = min(length, image.storage.size - offset)
        self._change(unique, image.storage.arrive("write", offset, length), image.storage, b"")

    def _change(self, unique: int, request: Request, storage: Storage, answer: bytes, direct: bool = False) -> None:
        def finish() -> None:
            # A direct write finds out itself that it failed; the others' errors wait for an FSYNC.
            if direct and storage.is_defective(request):
                storage.fail(request)
                self._reply(unique, errno.EIO)
            else:
                storage.complete(request)
                self._reply(unique, 0, answer)
        self._later(request, finish)

    def _fsync(self, unique: int, node: int, body: memoryview) -> None:
        image = self._image(node)
        opened = self._open.get(struct.unpack_from("<Q", body)[0], [image, 0])
        request = image.storage.arrive("flush")

        def finish() -> None:
            image.storage.complete(request)
            image.errors += request.failed
            told, opened[1] = opened[1], image.errors
            self._reply(unique, errno.EIO if told < image.errors else 0)
        self._later(request, finish)
