# SPDX-License-Identifier: GPL-2.0
"""What the device is told to do: strings of bytes, where they come from, and which of them are kept."""

import random
from dataclasses import dataclass
from pathlib import Path

# The seeds that are in the repository: a line "DEVICE USE SCRIPT" each, the last two in hexadecimal.
CORPUS = Path(__file__).with_name("corpus")
LONGEST = 96


@dataclass(frozen=True)
class Input:
    """How the guest uses the disk, and what the device does meanwhile (tests/device/src/script.rs)."""

    use: int
    script: bytes

    def __str__(self) -> str:
        return f"{self.use:02x} {self.script.hex() or '-'}"

    @classmethod
    def parse(cls, text: str) -> "Input":
        """The same from the text of one."""
        use, script = text.split()
        return cls(int(use, 16), b"" if script == "-" else bytes.fromhex(script))


def read_corpus(path: Path, device: str) -> list[Input]:
    """The inputs for a device that are kept in a file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Input.parse(line.split(maxsplit=1)[1]) for line in lines if line.split()[:1] == [device]]


def mutate(rng: random.Random, corpus: list[Input]) -> Input:
    """Another input, made of one or two that are there."""
    chosen = rng.choice(corpus)
    script = bytearray(chosen.script)
    for _ in range(1 << rng.randrange(4)):
        at = rng.randrange(len(script) + 1)
        way = rng.randrange(6)
        if way == 0 or not script:
            script[at:at] = rng.randbytes(rng.randrange(1, 5))
        elif way == 1:
            del script[at:at + rng.randrange(1, 5)]
        elif way == 2:
            script[at % len(script)] = rng.randrange(256)
        elif way == 3:
            script[at % len(script)] ^= 1 << rng.randrange(8)
        elif way == 4:
            # A proper answer here, so that what follows comes later.
            script[at:at] = bytes(rng.randrange(1, 9))
        else:
            other = rng.choice(corpus).script
            script[at:] = other[rng.randrange(len(other) + 1):]
    return Input(rng.choice((chosen.use, rng.randrange(256))), bytes(script[:LONGEST]))
