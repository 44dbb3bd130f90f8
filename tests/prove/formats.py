# SPDX-License-Identifier: GPL-2.0
"""Trials of image formats below the disk: what a cut leaves is read by qemu-img."""

import subprocess
from collections.abc import Callable
from typing import Any

from . import cuts
from .bench import MIB, Bench
from .raw import CACHE_TYPE, everybody
from .trials import trial

SIZE = 64 * MIB
SECRET = "secret,id=key,data=prove"


def _run(bench: Bench, create: list[str], node: Callable[[dict[str, Any]], dict[str, Any]], where: str,
         objects: list[str] = (), check: list[str] | None = None, by_file: bool = False) -> None:
    """Switch under load by every rule, and cut; the image lies on NBD or in a file."""
    image = bench.folder / "made"
    subprocess.run([bench.env.qemu / "qemu-img", "create", "-q", *objects, *create, image, str(SIZE)], check=True)
    serve = bench.mount if by_file else bench.serve
    child = serve(SIZE + 32 * MIB, image, where=where)
    image.unlink()
    vm = bench.boot(child, format_node=node, extra_first=list(objects))
    bench.load(vm, CACHE_TYPE, "toggle=5000", *everybody(), meanwhile=cuts.of_image(bench, node, objects, check))
    bench.at_least("switches", bench.notes["switches"], 10)
    bench.at_least("cuts", bench.notes["cuts"], 3)


def _qcow2(child: dict[str, Any]) -> dict[str, Any]:
    return {"driver": "qcow2", "file": child}


def _add_qcow2(name: str, options: list[str], by_file: bool) -> None:
    @trial(name, what=f"qcow2 {'in a file' if by_file else 'on NBD'}, switches by the guest, cuts, qemu-img check")
    def qcow2(bench: Bench) -> None:
        _run(bench, ["-f", "qcow2", *options], _qcow2, "anywhere", check=["-f", "qcow2"], by_file=by_file)


_add_qcow2("qcow2", [], False)
_add_qcow2("qcow2-file", [], True)
_add_qcow2("qcow2-lazy", ["-o", "lazy_refcounts=on"], False)


@trial("qcow2-backing")
def qcow2_backing(bench: Bench) -> None:
    """qcow2 with a raw backing image, small clusters: every write copies; cuts."""
    backing = bench.folder / "backing"
    backing.write_bytes(b"b" * SIZE)

    def node(child: dict[str, Any]) -> dict[str, Any]:
        return {"driver": "qcow2", "file": child, "backing": {
            "driver": "raw", "read-only": True,
            "file": {"driver": "file", "filename": str(backing), "read-only": True}}}
    _run(bench, ["-f", "qcow2", "-o", "cluster_size=65536", "-F", "raw", "-b", str(backing)], node, "anywhere",
         check=["-f", "qcow2"])
    backing.unlink()


@trial("luks")
def luks(bench: Bench) -> None:
    """LUKS on NBD, switches by the guest; what a cut leaves is decrypted."""
    _run(bench, ["-f", "luks", "-o", "key-secret=key,iter-time=10"],
         lambda child: {"driver": "luks", "key-secret": "key", "file": child}, "in cuts",
         objects=["--object", SECRET])
