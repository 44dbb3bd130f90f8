# SPDX-License-Identifier: GPL-2.0
"""An NBD server for a storage that forgets, with delays that reorder what is in flight.

It follows https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md: fixed newstyle
negotiation, simple or structured replies, FLUSH, FUA, WRITE_ZEROES and TRIM. Every request that a
client sends is in flight at once.
"""

import asyncio
import errno
import random
import struct
from dataclasses import dataclass
from pathlib import Path

from .storage import Request, Storage

_OPTION_MAGIC = 0x49484156454F5054
_REPLY_MAGIC = 0x3E889045565A9
_REQUEST = struct.Struct(">IHHQQI")
_REQUEST_MAGIC = 0x25609513
_SIMPLE_MAGIC = 0x67446698
_CHUNK_MAGIC = 0x668E33EF

_OPT_EXPORT_NAME, _OPT_ABORT, _OPT_LIST, _OPT_INFO, _OPT_GO, _OPT_STRUCTURED = 1, 2, 3, 6, 7, 8
_REP_ACK, _REP_SERVER, _REP_INFO = 1, 2, 3
_REP_UNSUP, _REP_INVALID = (1 << 31) + 1, (1 << 31) + 3
_INFO_EXPORT, _INFO_BLOCK_SIZE = 0, 3

_HAS_FLAGS, _SEND_FLUSH, _SEND_FUA, _SEND_TRIM, _SEND_WRITE_ZEROES = 1, 4, 8, 32, 64

_READ, _WRITE, _DISC, _FLUSH, _TRIM, _WRITE_ZEROES = 0, 1, 2, 3, 4, 6
_CMD_FUA = 1
_CHUNK_DONE = 1
_CHUNK_NONE, _CHUNK_DATA, _CHUNK_ERROR = 0, 1, 32769

LARGEST = 32 << 20


@dataclass(frozen=True)
class Delays:
    """How long a request takes, in seconds: usually up to the first number, sometimes to the second."""

    write: tuple[float, float] = (0.0005, 0.01)
    flush: tuple[float, float] = (0.001, 0.02)
    seldom: float = 0.03


class Server:
    """Serves one storage to any number of clients, on a unix socket, in the running loop."""

    def __init__(self, storage: Storage, seed: int, delays: Delays = Delays(), fua: bool = True,
                 structured: bool = True) -> None:
        self.storage = storage
        self.delays = delays
        self.fua = fua
        self.structured = structured
        self._random = random.Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, path: Path) -> None:
        """Listen on a socket."""
        self._server = await asyncio.start_unix_server(self._accept, path, limit=LARGEST * 2)

    async def stop(self) -> None:
        """Hang up on everybody."""
        if self._server:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            await _Client(self, reader, writer).serve()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    @property
    def flags(self) -> int:
        """The export's transmission flags."""
        return (_HAS_FLAGS | _SEND_FLUSH | _SEND_TRIM | _SEND_WRITE_ZEROES
                | (_SEND_FUA if self.fua else 0))

    def delay(self, kind: str) -> float:
        """How long a request of that kind is to take."""
        usual, long = self.delays.flush if kind == "flush" else self.delays.write
        return self._random.random() * (long if self._random.random() < self.delays.seldom else usual)


class _Client:
    """One connection."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._storage = server.storage
        self._reader = reader
        self._writer = writer
        self._structured = False
        self._loop = asyncio.get_running_loop()

    async def serve(self) -> None:
        """Negotiate, then take requests until the client leaves."""
        self._writer.write(b"NBDMAGIC" + struct.pack(">QH", _OPTION_MAGIC, 3))
        no_zeroes = bool(struct.unpack(">I", await self._reader.readexactly(4))[0] & 2)
        if await self._negotiate(no_zeroes):
            while await self._take_request():
                pass

    # Negotiation

    async def _negotiate(self, no_zeroes: bool) -> bool:
        while True:
            magic, option, length = struct.unpack(">QII", await self._reader.readexactly(16))
            # What an option says more is the name of an export, and there is one.
            await self._reader.readexactly(length)
            if magic != _OPTION_MAGIC:
                return False
            if option == _OPT_EXPORT_NAME:
                self._writer.write(struct.pack(">QH", self._storage.size, self._server.flags)
                                   + bytes(0 if no_zeroes else 124))
                return True
            if option == _OPT_ABORT:
                self._answer(option, _REP_ACK)
                return False
            if option == _OPT_STRUCTURED and not length and self._server.structured:
                self._structured = True
                self._answer(option, _REP_ACK)
            elif option == _OPT_LIST and not length:
                self._answer(option, _REP_SERVER, struct.pack(">I", 4) + b"disk")
                self._answer(option, _REP_ACK)
            elif option in (_OPT_INFO, _OPT_GO) and length >= 6:
                self._answer(option, _REP_INFO, struct.pack(
                    ">HQH", _INFO_EXPORT, self._storage.size, self._server.flags))
                self._answer(option, _REP_INFO, struct.pack(">HIII", _INFO_BLOCK_SIZE, 512, 4096, LARGEST))
                self._answer(option, _REP_ACK)
                if option == _OPT_GO:
                    return True
            else:
                self._answer(option, _REP_INVALID if option == _OPT_STRUCTURED and length else _REP_UNSUP)

    def _answer(self, option: int, kind: int, data: bytes = b"") -> None:
        self._writer.write(struct.pack(">QIII", _REPLY_MAGIC, option, kind, len(data)) + data)

    # Requests

    async def _take_request(self) -> bool:
        magic, flags, command, cookie, offset, length = _REQUEST.unpack(
            await self._reader.readexactly(_REQUEST.size))
        if magic != _REQUEST_MAGIC or command == _DISC:
            return False
        if command == _WRITE and length > LARGEST:
            return False
        data = await self._reader.readexactly(length) if command == _WRITE else None
        kinds = {_READ: "read", _WRITE: "write", _FLUSH: "flush", _TRIM: "write", _WRITE_ZEROES: "write"}
        fua = bool(flags & _CMD_FUA) and command != _READ
        if (command not in kinds or offset + length > self._storage.size or (fua and not self._server.fua)
                or offset % 512 or length % 512 or (command == _READ and length > LARGEST)):
            self._reply(cookie, errno.EINVAL)
            return True
        request = self._storage.arrive(kinds[command], offset, length, data, fua)
        self._loop.call_later(self._server.delay(request.kind), self._complete, cookie, request)
        return True

    def _complete(self, cookie: int, request: Request) -> None:
        content = self._storage.complete(request)
        self._reply(cookie, errno.EIO if request.failed else 0, content, request.offset)

    def _reply(self, cookie: int, error: int, content: bytes | None = None, offset: int = 0) -> None:
        if not self._structured:
            self._writer.write(struct.pack(">IIQ", _SIMPLE_MAGIC, error, cookie) + (content or b""))
            return
        if error:
            kind, payload = _CHUNK_ERROR, struct.pack(">IH", error, 0)
        elif content is not None:
            kind, payload = _CHUNK_DATA, struct.pack(">Q", offset) + content
        else:
            kind, payload = _CHUNK_NONE, b""
        self._writer.write(struct.pack(">IHHQI", _CHUNK_MAGIC, _CHUNK_DONE, kind, cookie, len(payload))
                           + payload)
