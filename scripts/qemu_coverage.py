#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Prints which lines that the patches add to QEMU its tests have executed.

Usage: qemu_coverage.py SOURCE, in a build folder made with --enable-gcov in which the tests have run, with the
folder of the unpatched source, and the names of the files that the patches touch on standard input

Prints a table with a row for each file, and then the lines of each that were not executed. QEMUs that a test has
killed have counted nothing.
"""

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from coverage import print_table

PATCHED = Path("../source")


def added(old: Path, new: Path) -> set[int]:
    """The lines that are in a file and were not."""
    text = subprocess.run(["diff", "--new-file", "--unchanged-line-format=", "--old-line-format=",
                           "--new-line-format=%dn\n", old, new], capture_output=True, text=True, check=False).stdout
    return set(map(int, text.split()))


def counts(names: list[str]) -> dict[str, dict[int, int]]:
    """How often each line was executed that there is code for, by the objects of these files."""
    found: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    ends = tuple(f"{name.replace('/', '_')}.gcno" for name in names)
    for notes in sorted(Path().rglob("*.gcno")):
        if not notes.name.endswith(ends):
            continue
        text = subprocess.run(["gcov", "--json-format", "--stdout", notes], check=True, capture_output=True).stdout
        for file in (file for line in text.splitlines() for file in json.loads(line)["files"]):
            for line in file["lines"]:
                found[str(Path(file["file"]))][line["line_number"]] += line["count"]
    return found


def main() -> None:
    """See above."""
    pristine = Path(sys.argv[1])
    names = [name for name in sys.stdin.read().split() if not name.startswith("tests/")]
    every, reached = {}, {}
    for path, lines in counts([name for name in names if name.endswith(".c")]).items():
        name = path.removeprefix(f"{PATCHED}/")
        if name in names:
            new = added(pristine / name, PATCHED / name)
            every[name] = {line for line in lines if line in new}
            reached[name] = {line for line in every[name] if lines[line]}
    print_table("added lines with code", every, reached, ("",))


if __name__ == "__main__":
    main()
