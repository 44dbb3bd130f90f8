# SPDX-License-Identifier: GPL-2.0
"""A disk with a volatile cache, which knows at any moment what a power cut would leave.

Its rules are those of a disk, and no others:

- what a write has written is volatile when it completes;
- a flush that has completed makes durable what had completed before the flush arrived;
- a write with FUA is durable when it completes.

Nothing else becomes durable. Whoever serves the disk calls arrive() and complete() for each request,
all from one thread, and so do those who ask what is durable: that there is one order of events is what
makes an answer right.
"""

import mmap
import os
import random
from array import array
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from . import records
from .records import BLOCK, SECTOR


@dataclass(eq=False)
class Request:
    """A request that arrived. For a write, data is what it writes, None stands for zeroes."""

    kind: str
    offset: int
    length: int
    fua: bool
    arrived: int
    data: bytes | None = None
    completed: int = 0
    # For a write that was to be durable, and for a flush: how many writes could not be made that.
    failed: int = 0


@dataclass
class Counts:
    """How many requests came, which tells whether a set-up is what it should be."""

    requests: dict[str, int] = field(default_factory=dict)

    def add(self, request: Request) -> None:
        """Count a request by its kind, and once more if it has FUA."""
        for name in (request.kind, f"{request.kind}+fua") if request.fua else (request.kind,):
            self.requests[name] = self.requests.get(name, 0) + 1

    def __getitem__(self, name: str) -> int:
        return self.requests.get(name, 0)


class Storage:
    """The disk. Its two images, what is read and what is durable, are sparse files in folder."""

    def __init__(self, folder: Path, size: int, content: Path | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.size = size
        self._paths = {name: folder / name for name in ("current", "durable")}
        for path in self._paths.values():
            if content:
                _copy_sparse(content, path)
            with path.open("ab") as file:
                file.truncate(size)
        self.current, self.durable = (_map(path) for path in self._paths.values())
        self.counts = Counts()
        # A part of the disk on which nothing can be made durable: its first and last byte.
        self.defect: tuple[int, int] | None = None
        self._events: deque[tuple[int, str, str, int, int, int]] = deque(maxlen=10000)
        # By block of a record: the highest sequence number that has been durable, wherever.
        self.found: dict[int, int] | None = None
        self._now = 0
        self._durable_since = array("Q", bytes(8 * (size // SECTOR)))
        self._volatile: deque[Request] = deque()
        self._flying: set[Request] = set()

    def close(self) -> None:
        """Give the images up, and remove them."""
        self.current.close()
        self.durable.close()
        for path in self._paths.values():
            path.unlink(missing_ok=True)

    # Requests

    def arrive(self, kind: str, offset: int = 0, length: int = 0, data: bytes | None = None,
               fua: bool = False) -> Request:
        """A request is there: "write" (with data, or of zeroes), "flush", "read"."""
        self._now += 1
        request = Request(kind, offset, length, fua, self._now, data)
        self.counts.add(request)
        if kind == "write":
            self._flying.add(request)
        self._note("arrives", request)
        return request

    def complete(self, request: Request) -> bytes | None:
        """It is done, and whoever sent it is told next. Returns what a read reads."""
        self._now += 1
        request.completed = self._now
        self._note("is done", request)
        if request.kind == "read":
            return self.current[request.offset:request.offset + request.length]
        if request.kind == "write":
            self._flying.discard(request)
            self._apply(self.current, request)
            if request.fua:
                request.failed += not self._harden(request)
            else:
                self._volatile.append(request)
        elif request.kind == "flush":
            # In the order of completion, as they are queued.
            while self._volatile and self._volatile[0].completed < request.arrived:
                request.failed += not self._harden(self._volatile.popleft())
        return None

    def fail(self, request: Request) -> None:
        """It failed: what a write would have written is nowhere."""
        self._now += 1
        self._note("fails", request)
        self._flying.discard(request)

    def is_defective(self, request: Request) -> bool:
        """Whether a request is for a part of the disk on which nothing can be made durable."""
        return (self.defect is not None and request.offset <= self.defect[1]
                and request.offset + request.length > self.defect[0])

    def _note(self, what: str, request: Request) -> None:
        kind = f"{request.kind} with FUA" if request.fua else request.kind
        self._events.append((self._now, what, kind, request.offset // BLOCK,
                             max(1, request.length // BLOCK), request.arrived))

    @staticmethod
    def _apply(image: mmap.mmap, request: Request, start: int = 0, end: int | None = None) -> None:
        end = request.length if end is None else end
        data = bytes(end - start) if request.data is None else request.data[start:end]
        image[request.offset + start:request.offset + end] = data

    def _harden(self, request: Request) -> bool:
        """Make a write durable, but for what a later one has made durable already; says whether it could."""
        if self.is_defective(request):
            return False
        first = request.offset // SECTOR
        last = first + request.length // SECTOR
        since = self._durable_since
        if last > first and max(since[first:last]) < request.completed:
            since[first:last] = array("Q", [request.completed]) * (last - first)
            self._apply(self.durable, request)
        else:
            for sector in range(first, last):
                if since[sector] < request.completed:
                    since[sector] = request.completed
                    start = (sector - first) * SECTOR
                    self._apply(self.durable, request, start, start + SECTOR)
        if self.found is not None and request.data is not None:
            for at in range(-request.offset % BLOCK, request.length - BLOCK + 1, BLOCK):
                record = records.head(request.data[at:at + 40])
                if record and self.found.get(record[0], 0) < record[1]:
                    self.found[record[0]] = record[1]
        return True

    # Answers

    def durable_block(self, block: int) -> bytes:
        """What a cut would leave of a block if nothing volatile was lucky."""
        return self.durable[block * BLOCK:(block + 1) * BLOCK]

    def snapshot(self, path: Path, lucky: random.Random | None = None) -> None:
        """Write what a cut would leave: nothing of what is volatile or in flight, or with lucky a part."""
        _copy_sparse(self._paths["durable"], path)
        if lucky is None:
            return
        share = lucky.choice((0.05, 0.5, 0.95))
        with path.open("r+b") as file, mmap.mmap(file.fileno(), self.size) as image:
            for request in [*self._volatile, *self._flying]:
                for start in range(0, request.length, BLOCK):
                    end = min(start + BLOCK, request.length)
                    sector = (request.offset + start) // SECTOR
                    newer = request.completed and self._durable_since[sector] > request.completed
                    if not newer and lucky.random() < share:
                        self._apply(image, request, start, end)

    def story_of(self, block: int) -> list[str]:
        """What happened to a block since its last write but one, and the flushes since then."""
        story: list[str] = []
        writes = 0
        for now, what, kind, first, blocks, arrived in reversed(self._events):
            if kind == "flush" or kind.startswith("write") and first <= block < first + blocks:
                where = "" if kind == "flush" else f" of {blocks} blocks at {first}"
                story.append(f"{now}: {kind}{where} {what}" + f" (arrived at {arrived})" * (now != arrived))
                writes += kind != "flush"
                if writes == 4 or len(story) == 10:
                    break
        return story[::-1]


def _map(path: Path) -> mmap.mmap:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)


def _copy_sparse(source: Path, target: Path) -> None:
    """Copy what is not a hole, so that a mostly empty disk costs little."""
    with source.open("rb") as src, target.open("w+b") as dst:
        size = os.fstat(src.fileno()).st_size
        dst.truncate(size)
        at = 0
        while True:
            try:
                at = os.lseek(src.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(src.fileno(), at, os.SEEK_HOLE)
            while at < end:
                done = os.copy_file_range(src.fileno(), dst.fileno(), min(end - at, 1 << 24), at, at)
                if not done:
                    return
                at += done
