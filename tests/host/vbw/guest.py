# SPDX-License-Identifier: GPL-2.0
"""Run commands in a guest, over the port that its init listens on."""

import base64
import re
import select
import shlex
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


class GuestError(AssertionError):
    """A guest that is gone, that hangs, or in which a command failed.

    output is what the command had said by then, if one was running.
    """

    output: "Output | None" = None


@dataclass
class Output:
    """What a command in the guest has said, and how it ended."""

    command: str
    lines: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    status: int | None = None

    @property
    def text(self) -> str:
        """All lines as one text, without the last newline."""
        return "\n".join(self.lines)


class Guest:
    """The guest's end of the line. One command at a time runs there."""

    def __init__(self, sock: socket.socket, log: Path, left: Callable[[], float],
                 patience: int = 1) -> None:
        self._sock = sock
        self.patience = patience
        self._buffer = b""
        self._log = log.open("w", encoding="utf-8", buffering=1)
        self._left = left
        self._next_id = 1
        self._jobs = 0

    def close(self) -> None:
        """Hang up; the guest powers off when it notices."""
        self._sock.close()
        self._log.close()

    def _line(self, end: float, what: str, limit: float) -> str:
        while b"\n" not in self._buffer:
            wait = end - time.monotonic()
            if wait <= 0:
                raise GuestError(f"no answer from the guest in {limit:.0f} s to: {what}")
            if not select.select([self._sock], [], [], wait)[0]:
                continue
            try:
                data = self._sock.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                raise GuestError(f"the guest ended before it answered to: {what}")
            self._buffer += data
        raw, self._buffer = self._buffer.split(b"\n", 1)
        line = raw.decode(errors="replace")
        self._log.write(f"{time.strftime('%H:%M:%S')} < {line}\n")
        return line

    def wait_ready(self, timeout: float) -> float:
        """Wait for init's first word; returns the guest's uptime then."""
        limit = min(timeout * self.patience, self._left())
        line = self._line(time.monotonic() + limit, "(its start)", limit)
        match = re.match(r"ready ([\d.]+)", line)
        if not match:
            raise GuestError(f"the guest's first word was {line!r}")
        return float(match.group(1))

    def run(self, command: str, timeout: float = 60, check: bool = True) -> Output:
        """Run a shell command; with check, it has to end with status 0."""
        number, self._next_id = self._next_id, self._next_id + 1
        limit = min(timeout * self.patience, self._left())
        end = time.monotonic() + limit
        self._log.write(f"{time.strftime('%H:%M:%S')} > {number} {command}\n")
        code = base64.b64encode(command.encode() + b"\n").decode()
        self._sock.sendall(f"{number} {code}\n".encode())
        output = Output(command)
        while output.status is None:
            try:
                line = self._line(end, command, limit)
            except GuestError as error:
                error.output = output
                raise
            if line.startswith(f"{number}|"):
                output.lines.append(line.split("|", 1)[1])
                output.times.append(time.monotonic())
            elif line.startswith(f"{number}="):
                output.status = int(line.split("=", 1)[1])
            else:
                raise GuestError(f"unexpected line from the guest: {line!r}")
        if check and output.status != 0:
            raise GuestError(
                f"in the guest: {command}\nended with status {output.status}\n{output.text}")
        return output

    def __call__(self, command: str, timeout: float = 60) -> str:
        """Run a command that must not fail, and return what it said."""
        return self.run(command, timeout).text

    def until(self, condition: str, seconds: float = 10) -> None:
        """Wait for a condition of the shell."""
        self.run(f"tries=0; until {condition}; do tries=$((tries + 1)); [ $tries -lt {seconds / 0.02:.0f} ] || exit 1; "
                 "usleep 20000; done")

    def resync(self, timeout: float = 60) -> None:
        """Be understood again by a guest that was suspended: its line may have lost what came."""
        end = time.monotonic() + min(timeout, self._left())
        code = base64.b64encode(b"true\n").decode()
        while True:
            number, self._next_id = self._next_id, self._next_id + 1
            self._sock.sendall(f"\n{number} {code}\n".encode())
            try:
                # Only the answer to the last of these ends it, so that none is left over.
                while self._line(min(end, time.monotonic() + 2), "(its sleep)", timeout) != f"{number}=0":
                    pass
                return
            except GuestError:
                if time.monotonic() > end:
                    raise

    def end(self) -> None:
        """Tell the guest to power off; there is no answer to this."""
        self._sock.sendall(b"end -\n")

    def start(self, command: str) -> "Job":
        """Start a command in the background of the guest."""
        self._jobs += 1
        folder = f"/run/jobs/{self._jobs}"
        inner = f"echo $$ > {folder}/pid; ({command}\n) > {folder}/out 2>&1; echo $? > {folder}/st; " \
                f"mv {folder}/st {folder}/status"
        self(f"mkdir -p {folder}; setsid sh -c {shlex.quote(inner)} > /dev/null 2>&1 &\n"
             f"while [ ! -s {folder}/pid ]; do sleep 0.01; done")
        return Job(self, folder, command)


@dataclass
class Job:
    """A command in the background of the guest, in a session of its own."""

    guest: Guest
    folder: str
    command: str

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.guest.run(f"[ -e {self.folder}/status ]", check=False).status != 0

    def wait(self, timeout: float = 60) -> Output:
        """Wait for its end."""
        tenths = int(timeout * self.guest.patience * 10)
        text = self.guest(
            f"n=0; while [ ! -e {self.folder}/status ] && [ $n -lt {tenths} ]; do "
            f"sleep 0.1; n=$((n + 1)); done; cat {self.folder}/status 2>/dev/null || echo late",
            timeout * 2 + 10)
        if text == "late":
            raise GuestError(f"in the guest, still running after {timeout:.0f} s: {self.command}\n"
                             + self.guest(f"cat {self.folder}/out"))
        output = Output(self.command, status=int(text))
        output.lines = self.guest(f"cat {self.folder}/out").splitlines()
        return output

    def signal(self, name: str) -> None:
        """Send a signal to every process of the job."""
        self.guest(f"kill -{name} -$(cat {self.folder}/pid)")
