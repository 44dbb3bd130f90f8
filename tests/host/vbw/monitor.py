# SPDX-License-Identifier: GPL-2.0
"""QEMU's monitor (QMP), with a log of all that was said."""

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Any

from qemu.qmp import QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol


class Monitor:
    """A QMP connection."""

    def __init__(self, sock: socket.socket, log: Path) -> None:
        self._log = log.open("w", encoding="utf-8", buffering=1)
        self._qmp = QEMUMonitorProtocol(sock)
        self._events: list[dict[str, Any]] = []

    def _write(self, what: str, message: Any) -> None:
        self._log.write(f"{time.strftime('%H:%M:%S')} {what} {json.dumps(message, default=str)}\n")

    def connect(self) -> None:
        """Say hello. No command may take longer than half a minute."""
        self._write("=", self._qmp.connect())
        self._qmp.settimeout(30)

    def cmd(self, name: str, **args: Any) -> Any:
        """Run a command; an error answer raises qemu.qmp.ExecuteError."""
        self._write(">", {name: args})
        try:
            answer = self._qmp.cmd(name, **args)
        except (QMPError, asyncio.TimeoutError) as error:
            self._write("!", repr(error))
            raise
        self._write("<", answer)
        return answer

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events called name that have come so far."""
        for event in self._qmp.get_events():
            self._write("*", event)
            self._events.append(event)
        return [event for event in self._events if event["event"] == name]

    def close(self) -> None:
        """Hang up, whatever state the other end is in."""
        try:
            self._qmp.close()
        except (QMPError, OSError, EOFError, asyncio.TimeoutError) as error:
            self._write("!", repr(error))
        self._log.close()
