# SPDX-License-Identifier: GPL-2.0
"""An NBD server that comes and goes."""

import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class NbdServer:
    """nbdkit on an image. Its clients keep requests for as long as it is away, up to a minute."""

    def __init__(self, address: Path, image: Path) -> None:
        self._address = address
        self._image = image
        self._process: subprocess.Popen[bytes] | None = None
        self.node: dict[str, Any] = {"driver": "nbd", "reconnect-delay": 60,
                                     "server": {"type": "unix", "path": str(address)}}

    def start(self, wrapper: Sequence[str] = ()) -> None:
        """Start it, or start it again, maybe as an argument of another program."""
        self._address.unlink(missing_ok=True)
        # One thread, because strace counts the calls of each by itself.
        self._process = subprocess.Popen([*wrapper, "nbdkit", "-f", "-t", "1", "--exit-with-parent",
                                          "-U", str(self._address), "file", str(self._image)])
        end = time.monotonic() + 60
        while not self._address.exists():
            assert time.monotonic() < end, "the NBD server does not start"
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once."""
        if self._process:
            self._process.kill()
            self._process.wait()


@contextmanager
def nbd_server(image: Path) -> Iterator[NbdServer]:
    """A server that is yet to be started; it ends in the end."""
    # Not in the test's folder: the name of a socket can't be that long.
    with tempfile.TemporaryDirectory(prefix="vbw-") as folder:
        server = NbdServer(Path(folder) / "socket", image)
        try:
            yield server
        finally:
            server.kill()
