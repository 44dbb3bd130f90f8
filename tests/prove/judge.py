# SPDX-License-Identifier: GPL-2.0
"""The verdict: an acknowledgement that arrives is checked against what is durable at that moment."""

import asyncio
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from . import records
from .records import Ack
from .storage import Storage

EXAMPLES = 2


class Judge:
    """Takes the guest's acknowledgements, on a unix socket that QEMU connects to.

    where is "in place" if block N of the records is block N of the storage, "anywhere" if a record may be
    anywhere on it, and "in cuts" if what is on the storage cannot be read before a cut is looked at.
    """

    def __init__(self, storage: Storage, where: str = "in place") -> None:
        self.storage = storage
        self.where = where
        # Where what is not durable on the storage may be instead, while a job copies it.
        self.second: Storage | None = None
        self.acknowledged = 0
        self.lost = 0
        self.rules: Counter[str] = Counter()
        self.lost_by_rule: Counter[str] = Counter()
        self.examples: list[str] = []
        self.problems: list[str] = []
        # The highest sequence number acknowledged, by block; negative if its end was.
        self.acked: dict[int, int] = {}
        if where == "anywhere":
            storage.found = {}
        # Called once, at the next acknowledgement, before anything else can happen.
        self.at_next: Callable[[], None] | None = None
        self._server: asyncio.Server | None = None

    async def start(self, path: Path) -> None:
        """Listen for QEMU."""
        self._server = await asyncio.start_unix_server(self._listen, path, limit=1 << 20)

    async def stop(self) -> None:
        """Listen no longer."""
        if self._server:
            self._server.close()

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                self.take(records.parse_ack(await reader.readexactly(records.ACK_SIZE)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except (ValueError, struct.error) as error:
            self.problems.append(f"the guest's port is out of step: {error}")
        finally:
            writer.close()

    def take(self, ack: Ack) -> None:
        """One acknowledgement."""
        self.acknowledged += 1
        self.rules[ack.rule] += 1
        missing = None
        for block in range(ack.block, ack.block + ack.blocks):
            if abs(self.acked.get(block, 0)) <= ack.sequence:
                self.acked[block] = -ack.sequence if ack.rule in records.ZEROES else ack.sequence
            if missing is None and ack.rule != records.ROW and not self._is_durable(block, ack):
                missing = block
        if missing is not None:
            self._lose(ack, missing)
        if self.at_next:
            todo, self.at_next = self.at_next, None
            todo()

    def _is_durable(self, block: int, ack: Ack) -> bool:
        if self.where == "in cuts" or self.storage.found is not None and ack.rule in records.ZEROES:
            return True
        if self.storage.found is not None:
            return max(self._durable(block), self.second.found.get(block, 0)
                       if self.second and self.second.found is not None else 0) >= ack.sequence
        sequence = -ack.sequence if ack.rule in records.ZEROES else ack.sequence
        return any(records.fulfils(storage.durable_block(block), block, sequence)
                   for storage in (self.storage, self.second) if storage)

    def _durable(self, block: int) -> int:
        if self.storage.found is not None:
            return self.storage.found.get(block, 0)
        return records.oldest(self.storage.durable_block(block), block)

    def _lose(self, ack: Ack, block: int) -> None:
        self.lost += 1
        self.lost_by_rule[ack.rule] += 1
        if len(self.examples) < EXAMPLES:
            story = self.storage.story_of(block) if self.where == "in place" else []
            self.examples.append(
                f"{ack.rule}: block {block} of {ack.blocks} at {ack.block}, sequence "
                f"{ack.sequence & (1 << 40) - 1}; durable is {self._durable(block) & (1 << 40) - 1}"
                + "".join(f"\n      {line}" for line in story))

    def check_second(self) -> None:
        """Look for all that was ever acknowledged on the other storage alone."""
        assert self.second
        self._check(self.second, "the copy")

    def check_all(self) -> None:
        """Look once more for all that was ever acknowledged on the storage."""
        self._check(self.storage, "the storage")

    def _check(self, storage: Storage, name: str) -> None:
        for block, sequence in self.acked.items():
            if not records.fulfils(storage.durable_block(block), block, sequence):
                self.lose_in_cut(f"block {block} is not on {name} as acknowledged: {sequence & (1 << 40) - 1}")

    def lose_in_cut(self, what: str) -> None:
        """Something that was acknowledged is not in what a cut left, or that is not whole."""
        self.lost += 1
        self.lost_by_rule["cut"] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"cut: {what}")
