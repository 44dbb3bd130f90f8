# SPDX-License-Identifier: GPL-2.0
"""The guest's kernel log: read it, cut it at marks, find what must not be there."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

TEST_MARK = "vbw-test: "
END_MARK = "vbw-end: "

# One place for what a healthy kernel never says.
BAD = re.compile(
    r"WARNING:|BUG:|BUG at|Oops|KASAN|UBSAN|KFENCE|KCSAN:"
    r"|possible recursive locking|possible circular locking|suspicious RCU usage"
    r"|inconsistent lock state|sleeping function called|scheduling while atomic"
    r"|general protection|unable to handle|refcount_t"
    r"|INFO: task .* blocked|rcu:.*stall|soft lockup|hard LOCKUP"
    r"|cannot create duplicate filename|Kernel panic|rust_kernel: panicked"
    r"|list_add corruption|list_del corruption|Poison overwritten|Tainted: [A-Z ]*D"
    r"|trying to register non-static key|lockdep is turned off|DEBUG_LOCKS_WARN_ON"
    r"|BUG \S+ \(|ODEBUG:|new suspected memory leaks"
    # KUnit's tests of a module, which run when it is loaded
    r"|\bnot ok \d"
)

# The first line of a report of a data race, the one after its two stacks, and a function of the driver there.
RACE = "BUG: KCSAN:"
RACE_END = "Reported by Kernel Concurrency Sanitizer"
OF_DRIVER = " [virtio_blk_wce]"


@dataclass(frozen=True)
class Line:
    """One message: its number in the log, when it came, and its text."""

    number: int
    seconds: float
    text: str

    def __str__(self) -> str:
        return f"[{self.seconds:12.6f}] {self.text}"


def read(path: Path) -> list[Line]:
    """Parse a copy of /dev/kmsg; a record that is not whole is left out."""
    lines: dict[int, Line] = {}
    if not path.exists():
        return []
    for raw in path.read_text(errors="replace").splitlines():
        match = re.match(r"\d+,(\d+),(\d+),[^;]*;(.*)$", raw)
        if match:
            number, microseconds, text = match.groups()
            lines[int(number)] = Line(int(number), int(microseconds) / 1e6, text)
    return [lines[number] for number in sorted(lines)]


def races_of_others(texts: Sequence[str]) -> set[int]:
    """Which lines begin reports of data races without the driver: the kernel has some of its own."""
    found = set()
    for index, text in enumerate(texts):
        if RACE not in text:
            continue
        report = takewhile(lambda line: RACE_END not in line, texts[index:])
        if not any(OF_DRIVER in line for line in report):
            found.add(index)
    return found


def bad(texts: Sequence[str]) -> list[int]:
    """Which lines fail a test."""
    others = races_of_others(texts)
    return [index for index, text in enumerate(texts) if BAD.search(text) and index not in others]


def bad_lines(lines: list[Line]) -> list[Line]:
    """The lines that fail a test."""
    return [lines[index] for index in bad([line.text for line in lines])]


def bad_console(path: Path) -> list[str]:
    """The same for the console: a panic gets no further than there."""
    if not path.exists():
        return []
    lines = path.read_text(errors="replace").splitlines()
    return [lines[index] for index in bad(lines)]


def by_test(lines: list[Line]) -> dict[str, list[Line]]:
    """Cut the log at the marks of the guest's tests; "" is what came before."""
    parts: dict[str, list[Line]] = {"": []}
    name = ""
    for line in lines:
        if line.text.startswith(TEST_MARK):
            name = line.text[len(TEST_MARK):]
            parts.setdefault(name, [])
        parts[name].append(line)
    return parts
