# SPDX-License-Identifier: GPL-2.0
"""The commands that a person has: the demo and the guest's prompt."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.stock_kernel("the demo and the prompt promise that kernel")


def script(env, name):
    """The command line of a script, as scripts/run.sh starts it."""
    return [sys.executable, str(env.src / "scripts" / name)]


def test_demo(env, folder):
    result = subprocess.run(script(env, "demo.py"), env={**os.environ, "VBW_OUT": str(folder)},
                            capture_output=True, text=True, timeout=300, check=False)
    (folder / "output").write_text(result.stdout + result.stderr)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.match(r"PASSED: \d+ checks in \d+ s$", result.stdout.splitlines()[-1])
    assert "\033" not in result.stdout, "plain text where no terminal is"

    page = (env.src / "Documentation" / "demo.rst").read_text()
    shown = [line[4:] for line in page.splitlines() if line.startswith("    ") and line != "    $ make demo"]
    assert without_figures(shown) == without_figures(result.stdout.splitlines()), \
        "Documentation/demo.rst shows another demo: make demo_svg"


def without_figures(lines):
    """The lines of the demo, without what differs from run to run."""
    words = (re.sub(r"\d+(\.\d+)*|tcg|kvm", "N", line) for line in lines)
    return [re.sub(r"\s+", " ", line).strip() for line in words if line.strip()]


def test_documents_show_the_same_demo(env):
    """The recording, its text and the part of it in README.md are of one run."""
    documents = env.src / "Documentation"
    shown = [line for line in (documents / "demo.rst").read_text().splitlines() if line.startswith("    ")]
    readme = (env.src / "README.md").read_text()
    part = re.search(r"^    2\. .*?(?=^\S)", readme, re.M | re.S)
    assert part
    lines = [line for line in part.group().splitlines() if line]
    assert len(lines) > 10 and "lost" in part.group()
    start = shown.index(lines[0])
    assert shown[start:start + len(lines)] == lines

    names = {"svg": "http://www.w3.org/2000/svg"}
    picture = ElementTree.parse(documents / "demo.svg")
    drawn = {"".join(group.itertext()).rstrip() for group in picture.iterfind(".//svg:defs/svg:g", names)}
    assert {line[4:].rstrip() for line in shown} <= drawn
    assert "](Documentation/demo.svg)" in readme


def test_demo_says_what_fails(env, folder):
    """With a driver that cannot be loaded there is no good verdict."""
    module = folder / "broken.ko"
    module.write_bytes(b"this is no module")
    result = subprocess.run(
        script(env, "demo.py"), capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "VBW_OUT": str(folder), "VBW_MODULE": str(module)})
    assert result.returncode == 1
    assert re.search(r"^FAILED in step 1: .*insmod", result.stdout, re.M)
    assert "logs: " in result.stdout


@pytest.mark.parametrize("command, status, output", [
    ("cat /sys/block/vda/cache_type", 0, "write back"),
    ("cat /sys/block/vda/size\nexit 3", 3, "2097152"),
])
def test_shell_with_commands_from_a_pipe(env, folder, command, status, output):
    result = subprocess.run(script(env, "shell.py"), env={**os.environ, "VBW_OUT": str(folder)},
                            input=command, capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stdout.strip()) == (status, output), result.stderr


def test_shell_on_a_terminal(env, folder):
    """A prompt, a command, and out again."""
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(script(env, "shell.py"), env={**os.environ, "VBW_OUT": str(folder)},
                             stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    terminal = Terminal(ours, 120)
    try:
        terminal.expect("Leave with exit")
        terminal.expect("guest# ")
        os.write(ours, b"cat /sys/block/vda/cache_type\n")
        terminal.expect("write back")
        terminal.expect("guest# ")
        os.write(ours, b"exit\n")
        terminal.drain()
        assert shell.wait(60) == 0
    finally:
        if shell.poll() is None:
            shell.kill()
        os.close(ours)
    assert not list(folder.glob("scratch*")), "the scratch disk is gone"


class Terminal:
    """The person's end of a terminal."""

    def __init__(self, fd, seconds):
        self.fd = fd
        self.end = time.monotonic() + seconds
        self.seen = ""

    def read(self):
        """Wait for more output; False when there will be none."""
        left = self.end - time.monotonic()
        assert left > 0 and select.select([self.fd], [], [], left)[0], self.seen
        try:
            data = os.read(self.fd, 4096)
        except OSError:
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def expect(self, text):
        """Read on until text has come."""
        while text not in self.seen:
            assert self.read(), f"it ended: {self.seen}"
        self.seen = self.seen.split(text, 1)[1]

    def drain(self):
        """Read to the end."""
        while self.read():
            pass
