#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Prints which lines of a module guests have executed, from what scripts/plugin/cover.c has written.

Usage: coverage.py MODULE FILE…

A line counts if there are instructions for it, and as reached if one of them was executed. Prints a table with a row
for each file, and then the lines of each that were not.
"""

import re
import subprocess
import sys
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

SECTIONS = (".text",)
# A block of translated code is where a module's code says if so many of its bytes are the same, but for addresses,
# which the kernel fills in: it changes some others, too, when it loads it. Where that is only one place, it tells
# where the module is, and so many have to agree.
ALIKE = 0.6
TELLING = 16
AGREED = 10

# A place in the source: a file and a line.
Place = tuple[str, int]


class Code:
    """A section of a module: its bytes, and its instructions with the places that they come from."""

    def __init__(self, text: str, sources: str) -> None:
        self.bytes = bytearray()
        self.addresses: list[int] = []
        self.places: list[list[Place]] = []
        # Which bytes belong to addresses.
        self.addressed: set[int] = set()
        places: list[Place] = []
        for line in text.splitlines():
            if found := re.match(r" *([0-9a-f]+):\t((?:[0-9a-f]{2} )+)", line):
                address, data = int(found[1], 16), bytes.fromhex(found[2])
                self.bytes += bytes(address - len(self.bytes)) + data
                self.addresses.append(address)
                self.places.append(places)
                for place in re.findall(r"\t([0-9a-f]+): R_X86_64_", line):
                    self.addressed.update(range(int(place, 16), int(place, 16) + 4))
            elif found := re.match(r"(inlined by )?(/\S+):(\d+)", line):
                # An instruction is of its own line, and of those that its function is called and inlined at.
                places = list(places) if found[1] else []
                if found[2].startswith(sources) and int(found[3]):
                    places.append((found[2].removeprefix(sources), int(found[3])))

    def has(self, offset: int, data: bytes) -> bool:
        """Whether this code is there, as far as the kernel leaves it alone."""
        mine = self.bytes[offset:offset + len(data)]
        same = [mine[at] == data[at] for at in range(min(len(mine), len(data))) if offset + at not in self.addressed]
        return len(mine) == len(data) and sum(same) >= ALIKE * len(same)

    def bases(self, blocks: list[tuple[int, bytes]]) -> set[int]:
        """Where the section has been."""
        found: Counter[int] = Counter()
        for address, data in blocks:
            offset = self.bytes.find(data) if len(data) >= TELLING else -1
            if offset >= 0 and self.bytes.find(data, offset + 1) < 0:
                found[address - offset] += 1
        most = min(AGREED, len(self.addresses) // 20)
        return {base for base, number in found.items() if number > most}

    def executed(self, blocks: list[tuple[int, bytes]]) -> Iterator[Place]:
        """The places of instructions that were executed."""
        for base in self.bases(blocks):
            for address, data in blocks:
                offset = address - base
                if not 0 <= offset < len(self.bytes) or not self.has(offset, data):
                    continue
                for index in range(bisect_left(self.addresses, offset), len(self.addresses)):
                    if self.addresses[index] >= offset + len(data):
                        break
                    yield from self.places[index]


def disassemble(module: Path) -> list[Code]:
    """The sections of a module that have code."""
    command = ["objdump", "-drlw", "--inlines", module, "-j"]
    texts = [subprocess.run([*command, name], check=True, capture_output=True, text=True).stdout for name in SECTIONS]
    # Another checkout of the same sources may have compiled it.
    sources = re.search(r"^(/.*/)drivers/block/virtio_blk_wce/driver\.rs:", texts[0], re.M)
    if not sources:
        sys.exit(f"coverage: {module} does not say which lines its code is of")
    return [Code(text, sources[1]) for text in texts]


def read(path: Path) -> list[tuple[int, bytes]]:
    """The blocks of one guest; the last line may not be whole."""
    text = path.read_text()
    words = (line.split() for line in text[:text.rfind("\n") + 1].splitlines())
    return [(int(address, 16), bytes.fromhex(data)) for address, data in words]


def ranges(numbers: set[int]) -> str:
    """Numbers, with neighbours as ranges."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def print_table(what: str, every: dict[str, set[int]], reached: dict[str, set[int]], folders: tuple[str, ...]) -> None:
    """Print how many lines of each file, and of all in each folder, are reached, and which are not."""
    print(f"\n| {what} | all | reached | % |\n| --- | --- | --- | --- |")
    for folder in folders:
        names = sorted(name for name in every if name.startswith(folder) and every[name])
        rows = [(name, len(every[name]), len(reached[name])) for name in names]
        rows.append((folder or "all", sum(row[1] for row in rows), sum(row[2] for row in rows)))
        for name, number, some in rows:
            print(f"| {name} | {number:,} | {some:,} | {100 * some / max(1, number):.0f} |")
    print()
    for name in sorted(every):
        if left := every[name] - reached[name]:
            print(f"{name}: {ranges(left)}")


def main() -> None:
    """See above."""
    module, *files = map(Path, sys.argv[1:])
    sections = disassemble(module)
    lines: dict[str, set[int]] = defaultdict(set)
    for section in sections:
        for name, number in chain.from_iterable(section.places):
            lines[name].add(number)
    reached: dict[str, set[int]] = defaultdict(set)
    for path in files:
        blocks = read(path)
        for section in sections:
            for name, number in section.executed(blocks):
                reached[name].add(number)
    print(f"guests: {len(files)}")
    print_table("lines with code", lines, reached, ("drivers/", "rust/"))


if __name__ == "__main__":
    main()
