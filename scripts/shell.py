#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A guest's prompt on the terminal; see shell.sh."""

import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "host"))

from vbw import env as vbw_env  # noqa: E402
from vbw import initrd  # noqa: E402
from vbw.env import Env  # noqa: E402
from vbw.guest import GuestError  # noqa: E402
from vbw.machine import Config, Disk, command_line, file_node, raw_node  # noqa: E402
from vbw.vm import VM  # noqa: E402


def prompt(env: Env, config: Config) -> int:
    """The guest's console on the terminal."""
    size = shutil.get_terminal_size()
    config.kernel_args = f"quiet loglevel=3 vbw.shell vbw.size={size.columns}x{size.lines}"
    print("Starting the guest; this takes a few seconds.", flush=True)
    return subprocess.run(command_line(env, config, initrd.build(env), None), check=False).returncode


def commands(env: Env, config: Config) -> int:
    """Run what comes by a pipe, and show what it says."""
    script = sys.stdin.read()
    config.deadline = 3600
    vm = VM(env, config, env.out / "shell")
    try:
        vm.start()
        vm.load()
        output = vm.guest.run(script, timeout=config.deadline, check=False)
        print(output.text)
        vm.finish()
        return output.status or 0
    except GuestError as error:
        print(f"shell: {error}\nlogs: {vm.folder}", file=sys.stderr)
        return 1
    finally:
        vm.kill()


def main() -> int:
    """Prompt or pipe?"""
    env = vbw_env.load()
    image = env.out / "scratch.img"
    with image.open("wb") as file:
        file.truncate(1 << 30)
    config = Config(disks=[Disk(raw_node(file_node(image)))])
    try:
        return prompt(env, config) if sys.stdin.isatty() else commands(env, config)
    finally:
        image.unlink()


if __name__ == "__main__":
    sys.exit(main())
