# SPDX-License-Identifier: GPL-2.0
"""The guest's kernel log: read it, cut it at marks, find what must not be there."""

import re
from dataclasses import dataclass
from pathlib import Path

TEST_MARK = "vbw-test: "
END_MARK = "vbw-end: "

# One place for what a healthy kernel never says.
BAD = re.compile(
    r"WARNING:|BUG:|BUG at|Oops|KASAN|UBSAN|KFENCE|KCSAN"
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


def bad_lines(lines: list[Line]) -> list[Line]:
    """The lines that fail a test."""
    return [line for line in lines if BAD.search(line.text)]


def bad_console(path: Path) -> list[str]:
    """The same for the console: a panic gets no further than there."""
    if not path.exists():
        return []
    return [line for line in path.read_text(errors="replace").splitlines() if BAD.search(line)]


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
