#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Usage: fuzz_corpus.py unpack FILE FOLDER | pack FOLDER FILE

The corpus of one of QEMU's fuzz targets: in a file it is a line of hexadecimal digits for each input, for
libFuzzer it is a folder with a file for each."""

import hashlib
import sys
from pathlib import Path

HEAD = "# SPDX-License-Identifier: GPL-2.0\n"


def unpack(file: Path, folder: Path) -> None:
    """Add a file's inputs to a folder, by the names that libFuzzer would give them."""
    for line in file.read_text(encoding="ascii").splitlines():
        if not line.startswith("#"):
            data = bytes.fromhex(line)
            (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def pack(folder: Path, file: Path) -> None:
    """Make a file of a folder's inputs."""
    lines = sorted((path.read_bytes().hex() for path in folder.iterdir()), key=lambda line: (len(line), line))
    file.write_text(HEAD + "".join(f"{line}\n" for line in lines if line), encoding="ascii")


if __name__ == "__main__":
    what = {"unpack": unpack, "pack": pack}.get(sys.argv[1] if len(sys.argv) == 4 else "")
    if not what:
        sys.exit(__doc__)
    what(Path(sys.argv[2]), Path(sys.argv[3]))
