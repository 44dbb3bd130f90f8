# SPDX-License-Identifier: GPL-2.0
"""On which machines each of the guest's scripts is run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .machine import Config, Disk, file_node, raw_node
from .vm import OURS, STOCK, VM

IMAGE_MIB = 64


@dataclass
class Scenario:
    """A machine with one disk, and what the script is told about it."""

    name: str
    transport: str = "pci-modern"
    machine: str = "q35"
    cpus: int = 2
    props: dict[str, Any] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    driver: str = OURS
    params: str = ""
    stock_qemu: bool = False
    image_mib: int = IMAGE_MIB
    timeout: float = 240.0
    after: Callable[[VM, Path], None] | None = None

    def config(self, image: Path) -> Config:
        """The machine, with its disk in image."""
        disk = Disk(raw_node(file_node(image)), self.transport, props=self.props)
        return Config(disks=[disk], machine=self.machine, cpus=self.cpus,
                      stock_qemu=self.stock_qemu, deadline=self.timeout + 60)


def vbwtool_pattern(length: int, seed: int) -> bytes:
    """The bytes that "vbwtool write" makes of a seed."""
    state = seed * 2 + 1
    data = bytearray()
    for _ in range(length):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        data.append(state >> 56)
    return bytes(data)


def _pattern_is_in_image(vm: VM, image: Path) -> None:
    with image.open("rb") as file:
        file.seek(17825792)
        found = file.read(65536)
    assert found == vbwtool_pattern(65536, 4711), \
        "the image does not have what test_pattern_for_the_host has written"


_SECTORS = {"SECTORS": str(IMAGE_MIB * 2048)}

_TRANSPORTS = [
    Scenario("pci-modern", environ=_SECTORS),
    Scenario("pci-transitional", transport="pci-transitional", environ=_SECTORS),
    Scenario("pci-legacy", transport="pci-legacy", environ=_SECTORS),
    Scenario("i440fx-transitional", machine="pc", transport="pci-transitional", environ=_SECTORS),
    Scenario("mmio", machine="microvm", transport="mmio", environ=_SECTORS),
]


def _queues(number: int, cpus: int) -> Scenario:
    return Scenario(f"queues-{number}", props={"num-queues": number}, cpus=cpus,
                    environ={"QUEUES": str(number)}, after=_pattern_is_in_image)


SCENARIOS: dict[str, list[Scenario]] = {
    "probe.sh": _TRANSPORTS,
    "io.sh": [
        _queues(1, 2),
        _queues(4, 4),
        Scenario("mmio", machine="microvm", transport="mmio", after=_pattern_is_in_image),
    ],
    "switch.sh": [
        Scenario("pci-modern"),
        Scenario("pci-transitional", transport="pci-transitional"),
        Scenario("mmio", machine="microvm", transport="mmio"),
        Scenario("config-wce-only", stock_qemu=True),
    ],
    "module.sh": [
        Scenario("pci-modern"),
        Scenario("queues-4", props={"num-queues": 4}, cpus=4),
        Scenario("mmio", machine="microvm", transport="mmio"),
    ],
    "switch-load.sh": [
        Scenario("queues-1", props={"num-queues": 1}),
        Scenario("queues-4", props={"num-queues": 4}, cpus=4),
        Scenario("config-wce-only", stock_qemu=True),
    ],
    # Made to fail, for test_harness.py
    "complains.sh": [Scenario("selftest", driver=STOCK, stock_qemu=True)],
}
