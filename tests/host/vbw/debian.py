# SPDX-License-Identifier: GPL-2.0
"""A Debian that runs on the driver: its files, with the driver installed, and a disk made of them."""

import os
import shutil
import subprocess
from pathlib import Path

from .env import Env, NotPrepared

LABEL = "vbw-root"
SIZE = "1200M"
# Nobody logs in, and an emulated serial line is slow.
QUIET = "quiet systemd.getty_auto=no systemd.mask=getty-static.service systemd.mask=getty@tty1.service"

_AGENT = """\
[Unit]
Description=The harness's hand in this guest
After=systemd-udev-trigger.service

[Service]
Environment="POWER_OFF=systemctl poweroff"
ExecStart=/bin/sh /srv/agent
"""

_FILES = {
    "etc/fstab": f"LABEL={LABEL} / ext4 errors=remount-ro 0 1\n",
    "etc/hostname": "guest\n",
    # It has been started before.
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/.updated": "", "var/.updated": "",
    "etc/systemd/system/vbw-agent.service": _AGENT,
}


def _run(*command: str | Path, **more: str) -> str:
    result = subprocess.run([str(word) for word in command], env={**os.environ, **more},
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, check=False)
    if result.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}\nended with status {result.returncode}\n{result.stdout}")
    return result.stdout


def _may_give_away(folder: Path) -> bool:
    """Whether files can have owners: an ordinary user's namespace has only root."""
    try:
        os.chown(folder, 1, 1)
        os.chown(folder, 0, 0)
    except OSError:
        return False
    return True


class Tree:
    """Its files, in a folder."""

    def __init__(self, env: Env, folder: Path) -> None:
        if not env.root_disk:
            raise NotPrepared("VBW_ROOT_DISK is not set: start this by scripts/run.sh --root-disk")
        self.env = env
        self.path = folder
        folder.mkdir()
        _run("tar", "-C", folder, "-xf", env.root_disk, "--numeric-owner", "--exclude=./dev/*",
             "--same-owner" if _may_give_away(folder) else "--no-same-owner")
        for name, text in _FILES.items():
            self.write(name, text)
        shutil.copy(env.src / "tests/guest/agent", folder / "srv/agent")
        wants = folder / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir(exist_ok=True)
        (wants / "vbw-agent.service").symlink_to("../vbw-agent.service")

    def write(self, name: str, text: str) -> None:
        """Make a file of it."""
        (self.path / name).write_text(text)

    def install_module(self) -> None:
        """What "make modules_install" does."""
        _run(self.env.src / "scripts/modules-install.sh", INSTALL_MOD_PATH=str(self.path))

    def run(self, commands: str, *folders: tuple[Path, str]) -> str:
        """Run commands as its root, with further folders at places of their own; returns what they say."""
        binds = [word for folder, place in folders for word in ("--ro-bind", folder, place)]
        return _run("bwrap", "--unshare-user", "--uid", "0", "--gid", "0", "--unshare-net",
                    "--bind", self.path, "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", *binds,
                    "--clearenv", "--setenv", "PATH", "/usr/sbin:/usr/bin", "--chdir", "/",
                    "--setenv", "DEBIAN_FRONTEND", "noninteractive", "sh", "-ec", commands)

    def initramfs(self) -> Path:
        """The archive with which its kernel starts."""
        return self.path / "boot" / f"initrd.img-{self.env.release}"

    def make_disk(self, image: Path, size: str = SIZE) -> None:
        """Make an image with a file system of it."""
        _run("mkfs.ext4", "-q", "-L", LABEL, "-d", self.path, image, size)


def take_out(image: Path, name: str, target: Path) -> None:
    """Copy a file out of its file system."""
    _run("debugfs", "-R", f"dump /{name} {target}", image)
    assert target.stat().st_size, f"{image} has no {name}"


def check_disk(image: Path) -> None:
    """Its file system is clean: nothing to mend, no journal to replay."""
    _run("e2fsck", "-fn", image)
