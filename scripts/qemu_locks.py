#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Usage: qemu_locks.py FILE…

Has clang look, in a build folder of QEMU, whether the locks that functions say they need are held: QEMU's
graph lock is checked by nothing else, and GCC knows nothing of it. The files are those that the patches
touch, and only those that the build compiles are looked at. Prints TAP."""

import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CLANG = "clang-19"
# What else clang would warn of is not asked for, as the build is GCC's.
ONLY = ["-Wno-everything", "-Wthread-safety", "-Werror", "-fsyntax-only"]


def check(entry: dict[str, str]) -> tuple[str, str]:
    """The file's name, and what is wrong with it."""
    command = shlex.split(entry["command"])
    # What is written, and the dependencies, stay those of the build.
    words = iter(command[1:])
    kept = []
    for word in words:
        if word in ("-o", "-MF", "-MQ"):
            next(words)
        elif word != "-MD":
            kept.append(word)
    done = subprocess.run([CLANG, *kept, *ONLY], cwd=entry["directory"], capture_output=True, text=True, check=False)
    return os.path.normpath(entry["file"]).removeprefix("../source/"), done.stderr if done.returncode else ""


def main() -> int:
    """Look at all of them; 0 if no lock is missing."""
    touched = set(sys.argv[1:])
    entries = json.loads(Path("compile_commands.json").read_text(encoding="utf-8"))
    mine = {entry["file"]: entry for entry in entries
            if entry["file"].removeprefix("../source/") in touched}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(check, mine.values()))
    for name, wrong in results:
        for line in wrong.splitlines():
            print(f"# {line}")
        print(f"{'not ok' if wrong else 'ok'} locks, {name}")
    return 1 if not results or any(wrong for _, wrong in results) else 0


if __name__ == "__main__":
    sys.exit(main())
