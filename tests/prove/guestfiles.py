# SPDX-License-Identifier: GPL-2.0
"""What a trial's guest has beside the harness's own: tools and kernel modules of the build root."""

import hashlib
import lzma
import os
import re
import subprocess
from functools import cache
from pathlib import Path

from vbw import cpio, initrd
from vbw.env import Env


def _libraries(binary: Path) -> list[Path]:
    answer = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False)
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", answer.stdout)]


@cache
def _dependencies(release: str) -> dict[str, tuple[Path, list[str]]]:
    """By module: its file, and the modules that have to be there first."""
    folder = Path("/usr/lib/modules") / release
    found = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        name, _, needs = line.partition(":")
        found[_name(name)] = folder / name, [_name(need) for need in needs.split()]
    return found


def _name(path: str) -> str:
    return Path(path).name.split(".")[0].replace("-", "_")


def in_order(env: Env, modules: list[str]) -> list[str]:
    """The modules and what they need, in the order in which they can be loaded."""
    known, order = _dependencies(env.release), []

    def add(name: str) -> None:
        for need in known[name][1]:
            add(need)
        if name not in order:
            order.append(name)

    for module in modules:
        if module.replace("-", "_") in known:
            add(module.replace("-", "_"))
    return order


def build(env: Env, binaries: list[str], modules: list[str], more: list[str] = ()) -> Path:
    """The harness's initramfs with programs (and their libraries), modules below /modules, and files."""
    archive = cpio.Archive()
    wanted: dict[str, Path] = {}
    for binary in binaries:
        path = Path(binary)
        wanted[binary] = path.resolve()
        for library in _libraries(path):
            wanted[str(library)] = library.resolve()
    for name in more:
        for path in sorted(Path(name).rglob("*")) if Path(name).is_dir() else [Path(name)]:
            if path.is_file():
                wanted[str(path)] = path.resolve()
    for name, path in sorted(wanted.items()):
        # The harness's own /bin is not a link to /usr/bin, as in the build root.
        name = re.sub(r"^/(bin|sbin|lib|lib64)/", r"/usr/\1/", name) if binary_folder(name) else name
        archive.add(name.lstrip("/"), path.read_bytes(), 0o755)
    known = _dependencies(env.release)
    for module in in_order(env, modules):
        data = known[module][0].read_bytes()
        archive.add(f"modules/{module}.ko", lzma.decompress(data) if known[module][0].suffix == ".xz" else data)
    extra = archive.finish()
    base = initrd.build(env)
    result = base.with_name(f"{base.stem}-{hashlib.sha256(extra).hexdigest()[:16]}.cpio")
    if not result.exists():
        part = result.with_name(f"{result.name}.{os.getpid()}")
        data = base.read_bytes()
        part.write_bytes(data + bytes(-len(data) % 4) + extra)
        part.rename(result)
    os.utime(result)
    return result


def binary_folder(name: str) -> bool:
    """Whether a path is one of the folders that are links into /usr in the build root."""
    return name.startswith(("/bin/", "/sbin/"))


def load_modules(env: Env, modules: list[str]) -> str:
    """Shell code that loads modules."""
    return "; ".join(f"insmod /modules/{name}.ko" for name in in_order(env, modules)) or "true"
