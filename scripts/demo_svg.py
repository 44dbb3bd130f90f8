# SPDX-License-Identifier: GPL-2.0
"""Records the demo, and makes what the documents show of it; see demo-svg.sh."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).resolve().parent.parent
PICTURE = SRC / "Documentation" / "demo.svg"
PAGE = SRC / "Documentation" / "demo.rst"
README = SRC / "README.md"
# What README.md shows: from the first of these steps to before the second.
FIRST, LAST = "2. ", "4. "
# In milliseconds: pauses are cut to the second of these, and the whole is shown for the third.
PACE = ["--min-frame-duration", "50", "--max-frame-duration", "1000", "--loop-delay", "20000"]
HEAD = """.. SPDX-License-Identifier: GPL-2.0

========
The demo
========

All that ``make demo`` has shown when ``make demo_svg`` recorded it. A test compares it with what it shows now. ::

"""


def record(cast: Path) -> str:
    """Run the demo in a terminal; returns what that was sent, without colours."""
    command = f"echo '$ make demo'; exec {shlex.quote(str(SRC / 'scripts' / 'demo.sh'))}"
    # The recorder takes the end of its standard input for that of the session.
    never, ours = os.pipe()
    subprocess.run(["termtosvg", "record", cast, "--screen-geometry", "100x100",
                    "--command", f"sh -c {shlex.quote(command)}"], stdin=never, check=True)
    os.close(never)
    os.close(ours)
    _, *events = map(json.loads, cast.read_text().splitlines())
    sent = "".join(data for _, kind, data in events if kind == "o")
    return re.sub(r"\033\[[0-9;]*m", "", sent).replace("\r\n", "\n")


def block(lines: list[str]) -> str:
    """Lines as the documents show them."""
    return "".join(f"    {line}".rstrip() + "\n" for line in lines)


def part_of(text: str) -> str:
    """The steps that README.md shows."""
    lines = text.splitlines()
    first, last = (next(number for number, line in enumerate(lines) if line.startswith(step))
                   for step in (FIRST, LAST))
    return block(lines[first:last - 1])


def draw(cast: Path, text: str) -> None:
    """Make the picture, on a screen that is as large as what is on it."""
    header, rest = cast.read_text().split("\n", 1)
    size = {"width": max(map(len, text.splitlines())) + 1, "height": text.count("\n") + 1}
    cast.write_text(json.dumps({**json.loads(header), **size}) + "\n" + rest)
    picture = cast.with_suffix(".svg")
    subprocess.run(["termtosvg", "render", cast, picture, "--template", "window_frame", *PACE], check=True)
    PICTURE.write_text("<!-- SPDX-License-Identifier: GPL-2.0 -->\n" + picture.read_text().rstrip() + "\n")


def main() -> int:
    """0 if the demo has passed."""
    cast = Path(os.environ["VBW_OUT"]) / "demo.cast"
    text = record(cast)
    if not re.search(r"^PASSED: .*\n\Z", text, re.M):
        print("The demo has failed: the documents stay as they are.")
        return 1
    readme = README.read_text()
    shown = re.compile(rf"^    {re.escape(FIRST)}(?:.*\n)+?(?=\S)", re.M)
    if len(shown.findall(readme)) != 1:
        print("README.md has no part of the demo that could be replaced.")
        return 1
    draw(cast, text)
    PAGE.write_text(HEAD + block(text.splitlines()))
    README.write_text(shown.sub(lambda _: part_of(text) + "\n", readme))
    return 0


if __name__ == "__main__":
    sys.exit(main())
