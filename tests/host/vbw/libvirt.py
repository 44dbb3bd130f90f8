# SPDX-License-Identifier: GPL-2.0
"""A private libvirt daemon of an ordinary user, on a host with a name of its own."""

import json
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

USER = 1000


class Libvirt:
    """The daemon, and virsh for it. Of what they write, logs stay."""

    def __init__(self, logs: Path, name: str) -> None:
        self.logs = logs / name
        self.logs.mkdir()
        # Names of sockets are short.
        self._temporary = tempfile.TemporaryDirectory(prefix=f"vbw-{name}-")
        self.folder = Path(self._temporary.name)
        for part in ("run", "config/libvirt", "cache"):
            (self.folder / part).mkdir(parents=True)
        files = {
            "passwd": f"root:x:0:0::/root:/bin/sh\nann:x:{USER}:{USER}::{self.folder}:/bin/sh\n",
            "group": f"root:x:0:\nann:x:{USER}:\n",
            # Two daemons on one machine have to look like two machines for a guest to move between them.
            "config/libvirt/libvirtd.conf": f'host_uuid = "{uuid.uuid4()}"\n',
            # Nothing but QEMU writes the logs.
            "config/libvirt/qemu.conf": 'stdio_handler = "file"\n',
        }
        for path, text in files.items():
            (self.folder / path).write_text(text)
        self._env = {**os.environ, "HOME": str(self.folder), "XDG_RUNTIME_DIR": str(self.folder / "run"),
                     "XDG_CONFIG_HOME": str(self.folder / "config"), "XDG_CACHE_HOME": str(self.folder / "cache")}
        self.socket = self.folder / "run/libvirt/libvirt-sock"
        self.uri = f"qemu+unix:///session?socket={self.socket}"
        with (self.logs / "libvirtd.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["bwrap", "--unshare-user", "--uid", str(USER), "--gid", str(USER), "--unshare-uts", "--hostname", name,
                 "--dev-bind", "/", "/", "--ro-bind", self.folder / "passwd", "/etc/passwd",
                 "--ro-bind", self.folder / "group", "/etc/group", "--die-with-parent", "libvirtd"],
                env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + 60
        while self.run("uri", check=False).returncode:
            assert self._process.poll() is None and time.monotonic() < end, \
                (self.logs / "libvirtd.log").read_text()[-2000:]
            time.sleep(0.05)

    def run(self, *words: str | Path, check: bool = True, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run virsh."""
        result = subprocess.run(["virsh", "-q", "-c", self.uri, *map(str, words)], env=self._env, capture_output=True,
                                stdin=subprocess.DEVNULL, text=True, timeout=seconds, check=False)
        with (self.logs / "virsh.log").open("a") as log:
            log.write(f"$ virsh {' '.join(map(str, words))}\n{result.stdout}{result.stderr}")
        if check and result.returncode:
            raise AssertionError(f"virsh {' '.join(map(str, words))}: {result.stderr}")
        return result

    def __call__(self, *words: str | Path, seconds: float = 120) -> str:
        """Run virsh, which must not fail, and return what it said."""
        return self.run(*words, seconds=seconds).stdout.strip()

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start virsh, for a command that waits for something."""
        return subprocess.Popen(["virsh", "-q", "-c", self.uri, *map(str, words)], env=self._env, text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def qmp(self, domain: str, command: str, **arguments: Any) -> Any:
        """A command of QEMU's monitor, by way of libvirt."""
        words = json.dumps({"execute": command, "arguments": arguments})
        answer = json.loads(self("qemu-monitor-command", domain, words))
        assert "return" in answer, answer
        return answer["return"]

    def end(self) -> None:
        """End its domains, and the daemon."""
        for domain in self.run("list", "--name", check=False).stdout.split():
            self.run("destroy", domain, check=False)
        self._process.terminate()
        self._process.wait(30)
        logs = self.folder / "cache/libvirt/qemu/log"
        if logs.exists():
            shutil.copytree(logs, self.logs / "qemu")
        self._temporary.cleanup()
