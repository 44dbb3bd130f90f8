# SPDX-License-Identifier: GPL-2.0
"""Fuzz the driver: a device misbehaves, and no guest's kernel may complain or get stuck."""

import argparse
import os
import random
import sys
import time
from pathlib import Path

from vbw import env as vbw_env

from .inputs import CORPUS, Input, mutate, read_corpus
from .target import DEVICES, Finding, Target

# The guest's log is read so often, and a guest is replaced so often, in inputs.
CHECK, REPLACE = 100, 5000


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="fuzz-driver", description=__doc__)
    parser.add_argument("input", nargs="*", help="an input as it was printed, \"DEVICE USE SCRIPT\", to run alone")
    parser.add_argument("--inputs", type=int, default=2000, help="how many (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after that time")
    parser.add_argument("--seed", type=int, help="what an earlier run printed")
    parser.add_argument("--corpus", type=Path, help="where inputs that reach new code are added, and read from too")
    return parser.parse_args()


class Fuzzer:
    """All devices, one after the other, until there were enough inputs."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.env = vbw_env.load()
        self.args = args
        self.seed = args.seed if args.seed is not None else random.SystemRandom().getrandbits(32)
        self.rng = random.Random(self.seed)
        self.findings = 0
        self.done = 0
        self.began = time.monotonic()
        print(f"seed {self.seed}; module {self.env.module}; logs in {self.env.out / 'fuzz'}", flush=True)

    def _over(self) -> bool:
        return self.done >= self.args.inputs or time.monotonic() > self.began + self.args.seconds

    def _keep(self, device: str, entry: Input) -> None:
        if self.args.corpus:
            with self.args.corpus.open("a") as file:
                file.write(f"{device} {entry}\n")

    def _report(self, device: str, recent: list[Input], why: str) -> None:
        self.findings += 1
        print(f"FOUND with the device {device}: {why}", flush=True)
        for entry in recent[-CHECK:]:
            print(f"    {device} {entry}", flush=True)

    def turn(self, device: str, inputs: int) -> None:
        """One guest."""
        corpus = read_corpus(CORPUS, device)
        if self.args.corpus:
            corpus += read_corpus(self.args.corpus, device)
        todo = list(dict.fromkeys(corpus))
        corpus = todo.copy() or [Input(0, b"")]
        plugin = os.environ.get("VBW_COVER_PLUGIN")
        target = Target(self.env, self.env.out / "fuzz" / f"{device}-{self.done}", device,
                        Path(plugin) if plugin else None)
        recent: list[Input] = []
        reached, before, began, found = 0, self.done, time.monotonic(), self.findings
        try:
            while inputs > 0 and not self._over():
                entry = todo.pop(0) if todo else mutate(self.rng, corpus)
                recent.append(entry)
                target.run(entry)
                self.done += 1
                inputs -= 1
                new = target.new_blocks()
                if new:
                    reached += new
                    if entry not in corpus:
                        corpus.append(entry)
                        self._keep(device, entry)
                if len(recent) >= CHECK:
                    target.check()
                    recent.clear()
            target.check()
        except Finding as finding:
            self._report(device, recent, str(finding))
        finally:
            bad = target.close()
        if bad and self.findings == found:
            self._report(device, recent, "\n".join(bad[:20]))
        number, seconds = self.done - before, time.monotonic() - began
        print(f"{device:12} {number:6} inputs, {reached:5} blocks of code, {len(corpus):4} inputs that reach some, "
              f"{60 * number / seconds:5.0f} a minute", flush=True)

    def replay(self, lines: list[str]) -> None:
        """Inputs as they were printed."""
        for line in lines:
            device, text = line.split(maxsplit=1)
            target = Target(self.env, self.env.out / "fuzz" / f"{device}-{self.done}", device)
            entry = Input.parse(text)
            try:
                print(f"{line}: {target.run(entry)}", flush=True)
                target.check()
            except Finding as finding:
                self._report(device, [entry], str(finding))
            finally:
                target.close()
            self.done += 1


def main() -> int:
    """Run what was asked for; 0 if nothing was found."""
    fuzzer = Fuzzer(parse())
    if fuzzer.args.input:
        fuzzer.replay(fuzzer.args.input)
    share = max(1, min(REPLACE, -(-fuzzer.args.inputs // len(DEVICES))))
    while not fuzzer.args.input and not fuzzer._over():
        for device in DEVICES:
            if not fuzzer._over():
                fuzzer.turn(device, share)
    print(f"fuzz: {fuzzer.done} inputs, {fuzzer.findings} findings")
    return 1 if fuzzer.findings else 0


if __name__ == "__main__":
    sys.exit(main())
