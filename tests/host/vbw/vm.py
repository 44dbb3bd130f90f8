# SPDX-License-Identifier: GPL-2.0
"""A virtual machine: started, talked to, ended, and its kernel's log checked."""

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from . import initrd, kernel_log
from .env import Env
from .guest import Guest, GuestError
from .machine import Config, Files, command_line
from .monitor import Monitor

OURS = "virtio_blk_wce"
STOCK = "virtio_blk"
MODULES = {OURS: "/vbw/virtio_blk_wce.ko", STOCK: "/lib/modules/virtio_blk.ko"}


class KernelComplained(AssertionError):
    """The guest's kernel wrote something that a healthy one does not."""


class VM:
    """One QEMU process and the guest in it. Everything it says is in folder."""

    def __init__(self, env: Env, config: Config, folder: Path) -> None:
        self.env = env
        self.config = config
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.boot_seconds = 0.0
        self._ended = False
        folder.mkdir(parents=True, exist_ok=True)

    # Start and end

    def start(self) -> "VM":
        """Start QEMU and wait until the guest's init takes commands."""
        return self.launch().wait_ready()

    def wait_ready(self) -> "VM":
        """Wait for that, after launch()."""
        try:
            self.guest.wait_ready(self.config.start_seconds)
        except GuestError as error:
            self._did_not_start(error)
        self.boot_seconds = time.monotonic() - self.started_at
        return self

    def launch(self) -> "VM":
        """Start QEMU alone, for a guest that is there already or is yet to come."""
        monitor, monitor_theirs = socket.socketpair()
        agent, agent_theirs = socket.socketpair()
        files = Files(
            console=self.folder / "console.log",
            kmsg=self.folder / "kmsg",
            monitor_fd=monitor_theirs.fileno(),
            agent_fd=agent_theirs.fileno(),
        )
        archive = self.config.initrd or initrd.build(self.env)
        command = command_line(self.env, self.config, archive, files)
        (self.folder / "command").write_text(" \\\n  ".join(command) + "\n")
        self.started_at = time.monotonic()
        with (self.folder / "qemu.log").open("wb") as log:
            # A session of its own, so that all of it, and nothing else, can be
            # ended; and it ends when the one who started it does.
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=(files.monitor_fd, files.agent_fd), start_new_session=True)
        monitor_theirs.close()
        agent_theirs.close()
        self.guest = Guest(agent, self.folder / "guest.log", self._left, self.env.patience)
        self.monitor = Monitor(monitor, self.folder / "qmp.log")
        try:
            self.monitor.connect()
        except Exception as error:
            self._did_not_start(error)
        return self

    def _did_not_start(self, error: Exception) -> None:
        self.kill()
        raise GuestError(f"the guest did not start: {error}\n{self._last_words()}") from None

    def _left(self) -> float:
        return max(0.0, self.started_at + self.config.deadline * self.env.patience
                   - time.monotonic())

    def _last_words(self) -> str:
        text = []
        for name in ("qemu.log", "console.log"):
            path = self.folder / name
            if path.exists():
                text += [f"--- end of {path}"] + path.read_text(errors="replace").splitlines()[-12:]
        return "\n".join(text)

    def finish(self) -> list[kernel_log.Line]:
        """Power the guest off, and return its kernel's log; raises if that is bad."""
        try:
            self._end()
        finally:
            self.kill()
        lines = self.kernel_log()
        (self.folder / "dmesg").write_text("".join(f"{line}\n" for line in lines))
        return lines

    def _end(self) -> None:
        """Let the log come out to its end, then power off."""
        if self._ended or self.process is None:
            return
        try:
            self.wait_for_log(kernel_log.END_MARK + "end")
            # A guest that was suspended can't power off by ACPI in this QEMU.
            if self.config.serial:
                self.qmp("quit")
            else:
                self.guest.end()
            self.process.wait(min(self.config.end_seconds * self.env.patience, self._left()))
        except (GuestError, OSError, subprocess.TimeoutExpired) as error:
            raise GuestError(f"the guest did not power off: {error}\n{self._last_words()}") from error

    def abandon(self) -> list[str]:
        """End it after a failure; returns what its kernel complained about."""
        self.kill()
        lines = self.kernel_log()
        (self.folder / "dmesg").write_text("".join(f"{line}\n" for line in lines))
        bad = [str(line) for line in kernel_log.bad_lines(lines)]
        return bad or kernel_log.bad_console(self.folder / "console.log")

    def kill(self) -> None:
        """End QEMU if it is still there, and hang up."""
        if self._ended or self.process is None:
            return
        self._ended = True
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.monitor.close()
        self.guest.close()

    # The guest's side

    def wait_for_log(self, mark: str) -> None:
        """Have the guest write a line to its log, and wait until it is here."""
        mark = f"{mark} {time.monotonic_ns()}"
        self.guest(f"echo '<6>{mark}' > /dev/kmsg")
        end = time.monotonic() + min(20 * self.env.patience, self._left())
        while not any(line.text == mark for line in self.kernel_log()):
            if time.monotonic() > end:
                raise GuestError("the kernel's log does not come out of the guest")
            time.sleep(0.02)

    def kernel_log(self) -> list[kernel_log.Line]:
        """What the guest's kernel has said so far."""
        return kernel_log.read(self.folder / "kmsg")

    def check_log(self) -> None:
        """Raise if the kernel has complained."""
        bad = [str(line) for line in kernel_log.bad_lines(self.kernel_log())]
        bad = bad or kernel_log.bad_console(self.folder / "console.log")
        bad = [line for line in bad if not re.search(self.config.tolerated, line)]
        if bad:
            raise KernelComplained(
                "the guest's kernel complained:\n  " + "\n  ".join(bad[:20])
                + f"\nits whole log: {self.folder / 'dmesg'}")

    def load(self, driver: str = OURS, params: str = "") -> None:
        """Load a driver and wait for the disks to appear."""
        self.guest(f"insmod {MODULES[driver]} {params}")
        if self.config.disks:
            self.guest(wait_for_disks(len(self.config.disks)))

    # The host's side

    def qmp(self, name: str, **args: Any) -> Any:
        """Run a monitor command."""
        return self.monitor.cmd(name, **args)

    def _device(self, query: str, name: str) -> dict[str, Any]:
        for entry in self.qmp(query):
            if entry.get("qdev", "").split("/")[-2:-1] == [name] \
                    or entry.get("qdev", "").split("/")[-1] == name:
                return entry
        raise KeyError(f"{query} knows no device {name}")

    def host_mode(self, disk: str = "disk0") -> str:
        """The cache mode as the host sees it, in the guest's words."""
        cache = self._device("query-block", disk)["inserted"]["cache"]
        return "write back" if cache["writeback"] else "write through"

    def host_stats(self, disk: str = "disk0") -> dict[str, Any]:
        """The host's counters of a disk's requests."""
        return self._device("query-blockstats", disk)["stats"]


def wait_for_disks(number: int) -> str:
    """Shell code that waits until number virtio disks are there."""
    return (f"n=0; until [ $(ls /dev | grep -c '^vd[a-z]$') -ge {number} ]; do "
            "n=$((n + 1)); [ $n -lt 500 ] || { echo 'no disk came'; ls /dev; exit 1; }; "
            "usleep 20000; done")
