# SPDX-License-Identifier: GPL-2.0
"""The records that tests/guest/provetool.c writes, and its acknowledgements of them."""

import struct
from typing import NamedTuple

BLOCK = 4096
SECTOR = 512
RULES = ("fsync", "fdatasync", "dsync", "rwf", "aio", "aio-rwf", "aio-fsync", "uring", "uring-rwf",
         "uring-fsync", "uring-poll", "plain", "switch", "zero", "zero-fsync", "row")
# By these a record was overwritten with zeroes.
ZEROES = ("zero", "zero-fsync")
# What is not a record on the disk: only a check of what a cut leaves can tell.
ROW = "row"

_RECORD_MAGIC = 0x57425655
_ACK_MAGIC = 0x4B434155
_MAGIC = struct.pack("<I", _RECORD_MAGIC)
_RECORDS = struct.Struct("<IIQQQ480x")
_HEAD = struct.Struct("<IIQQQ")
_ACK = struct.Struct("<IIQQII")
_MASK = (1 << 64) - 1

ACK_SIZE = _ACK.size


class Ack(NamedTuple):
    """The guest's word that blocks, and so many after it, are durable with that sequence number."""

    block: int
    sequence: int
    blocks: int
    rule: str


def parse_ack(data: bytes) -> Ack:
    """What one message on the guest's port says."""
    magic, _, block, sequence, blocks, rule = _ACK.unpack(data)
    if magic != _ACK_MAGIC:
        raise ValueError(f"not an acknowledgement: {data.hex()}")
    return Ack(block, sequence, blocks, RULES[rule])


def _mix(x: int) -> int:
    x ^= x >> 30
    x = x * 0xBF58476D1CE4E5B9 & _MASK
    x ^= x >> 27
    x = x * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31


def _valid(run: int, block: int, sequence: int, check: int) -> bool:
    return check == _mix(_mix(block + 1) ^ sequence ^ run << 32)


def oldest(content: bytes, block: int) -> int:
    """The lowest sequence number in the sectors of a block; 0 where one has no record of it."""
    lowest = _MASK
    last = None
    for magic, run, number, sequence, check in _RECORDS.iter_unpack(content):
        if sequence != last:
            if magic != _RECORD_MAGIC or number != block or not _valid(run, number, sequence, check):
                return 0
            last = sequence
            lowest = min(lowest, sequence)
        elif magic != _RECORD_MAGIC or number != block:
            return 0
    return lowest


def is_over(content: bytes, block: int, sequence: int) -> bool:
    """Whether a block, of which that record was overwritten with zeroes, has nothing of it or older."""
    return not any(content) or oldest(content, block) > sequence


def fulfils(content: bytes, block: int, sequence: int) -> bool:
    """Whether a block has what was acknowledged: that record or a later one, or, if negative, its end."""
    return is_over(content, block, -sequence) if sequence < 0 else oldest(content, block) >= sequence


def head(content: bytes) -> tuple[int, int] | None:
    """Block and sequence number of the record that a block begins with."""
    if content[:4] != _MAGIC:
        return None
    _, run, block, sequence, check = _HEAD.unpack_from(content)
    return (block, sequence) if _valid(run, block, sequence, check) else None
