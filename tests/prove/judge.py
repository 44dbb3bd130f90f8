# SPDX-License-Identifier: GPL-2.0
"""The verdict: an acknowledgement that arrives is checked against what is durable at that moment."""

import asyncio
import struct
from collections import Counter
from pathlib import Path

from . import records
from .records import Ack
from .storage import Storage

EXAMPLES = 2


class Judge:
    """Takes the guest's acknowledgements, on a unix socket that QEMU connects to.

    With in_place, block N of the records is block N of the storage; else a record may be anywhere on it.
    """

    def __init__(self, storage: Storage, in_place: bool = True) -> None:
        self.storage = storage
        self.in_place = in_place
        self.acknowledged = 0
        self.lost = 0
        self.rules: Counter[str] = Counter()
        self.lost_by_rule: Counter[str] = Counter()
        self.examples: list[str] = []
        self.problems: list[str] = []
        # The highest sequence number acknowledged, by block.
        self.acked: dict[int, int] = {}
        # What else is to happen for each acknowledgement, with whether it was lost.
        self.hooks: list = []
        if not in_place:
            storage.found = {}
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
            if self.acked.get(block, 0) < ack.sequence:
                self.acked[block] = ack.sequence
            if missing is None and self._durable(block) < ack.sequence:
                missing = block
        if missing is not None:
            self._lose(ack, missing)
        for hook in self.hooks:
            hook(ack, missing is not None)

    def _durable(self, block: int) -> int:
        if self.in_place:
            return records.oldest(self.storage.durable_block(block), block)
        assert self.storage.found is not None
        return self.storage.found.get(block, 0)

    def _lose(self, ack: Ack, block: int) -> None:
        self.lost += 1
        self.lost_by_rule[ack.rule] += 1
        if len(self.examples) < EXAMPLES:
            story = self.storage.story_of(block) if self.in_place else []
            self.examples.append(
                f"{ack.rule}: block {block} of {ack.blocks} at {ack.block}, sequence "
                f"{ack.sequence & (1 << 40) - 1}; durable is {self._durable(block) & (1 << 40) - 1}"
                + "".join(f"\n      {line}" for line in story))

    def missing_from(self, content: bytes, acked: dict[int, int]) -> list[int]:
        """The acknowledged blocks whose record an image of the disk does not have."""
        size = records.BLOCK
        return [block for block, sequence in acked.items()
                if records.oldest(content[block * size:(block + 1) * size], block) < sequence]
