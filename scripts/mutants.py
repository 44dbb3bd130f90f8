# SPDX-License-Identifier: GPL-2.0
"""Mutants of driver, layer and device: each is built, and has to be noticed by a test."""

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

SRC = Path(os.environ["VBW_SRC"])
OUT = Path(os.environ["VBW_OUT"]) / "mutants"
TREE = Path(os.environ["VBW_CACHE"]) / "mutants"
# What a module and QEMU are built from, and the scripts that build them.
PARTS = ("Kbuild", "Makefile", "drivers", "include", "qemu-patches", "rust", "scripts", "tests/switch")
SEARCH = "search"
# The stock kernel unless scripts/run.sh was told otherwise.
KERNEL = os.environ["VBW_DEBUG"]
KDIR = [Path(os.environ["VBW_MODULES"]).parent] if KERNEL else []


@dataclass
class Mutant:
    """One change of the source, and who is to notice it."""

    name: str
    file: str
    old: str
    new: str
    tests: str
    # Not wrong but unlucky: the tests have to pass.
    passes: bool = False
    # The debug kernel that it takes, as VBW_DEBUG calls it.
    kernel: str = ""

    def apply(self) -> None:
        """Change the file in the copy; the old text has to be there just once."""
        path = TREE / self.file
        text = path.read_text()
        found = text.count(self.old)
        if found != 1:
            raise ValueError(f"{self.name}: its text is in {self.file} {found} times")
        path.write_text(text.replace(self.old, self.new))

    def is_of_qemu(self) -> bool:
        """Whether it is in a patch of QEMU."""
        return self.file.startswith("qemu-patches/")

    def is_for_qemu(self) -> bool:
        """Whether it is for QEMU's own tests to notice."""
        return self.is_of_qemu() and not self.tests.startswith("tests/")

    def run(self) -> str:
        """Build and test; returns what came of it."""
        log = OUT / f"{self.name}.log"
        copy_sources()
        self.apply()
        if self.tests == SEARCH:
            return searched(log)
        if self.is_for_qemu():
            return tested_in_qemu(log, self.tests)

        environ = {**os.environ, "VBW_SRC": str(TREE)}
        build = [TREE / "scripts/qemu.sh"] if self.is_of_qemu() else [TREE / "scripts/module.sh", *KDIR]
        built = subprocess.run(build, env=environ, text=True, capture_output=True)
        log.write_text(built.stdout + built.stderr)
        if built.returncode:
            return "does not build"
        result = Path(built.stdout.split()[-1])
        if self.is_of_qemu():
            return tested(log, {"VBW_QEMU": str(result)}, self.tests)
        # Other builds may remove this one from the cache before the tests are over.
        module = OUT / f"{self.name}.ko"
        shutil.copy2(result, module)
        return tested(log, {"VBW_MODULE": str(module)}, self.tests)


def copy_sources() -> None:
    """Have what is built from anew, without a mutant."""
    shutil.rmtree(TREE, ignore_errors=True)
    for part in PARTS:
        source, target = SRC / part, TREE / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)


def searched(log: Path) -> str:
    """What the search of all interleavings says."""
    program = TREE / "explore"
    built = subprocess.run(["rustc", "--edition", "2021", "-O", "--test", "-o", program,
                            TREE / "tests/switch/explore.rs"], text=True, capture_output=True)
    if built.returncode:
        log.write_text(built.stderr)
        return "does not build"
    with log.open("w") as file:
        found = subprocess.run([program, "--nocapture"], stdout=file, stderr=file)
    return "noticed" if found.returncode else "NOT NOTICED"


def tested_in_qemu(log: Path, tests: str) -> str:
    """What those of QEMU's own tests say whose names have this in them."""
    environ = {**os.environ, "VBW_SRC": str(TREE)}
    with log.open("w") as file:
        status = subprocess.run([TREE / "scripts/qemu.sh", "--tests", TREE / "scripts/qemu-tests.sh", "--only", tests],
                                env=environ, stdout=file, stderr=file).returncode
    lines = log.read_text().splitlines()
    if status:
        return "does not build"
    if any(line.startswith("not ok") for line in lines):
        return "noticed"
    return "NOT NOTICED" if any(line.startswith("ok") for line in lines) else "no such tests"


def tested(log: Path, broken: dict[str, str], tests: str) -> str:
    """What the tests say: one has to fail, not merely be unable to begin."""
    environ = {**os.environ, **broken, "VBW_OUT": str(log.with_suffix(""))}
    log.with_suffix("").mkdir(exist_ok=True)
    with log.open("a") as file:
        status = subprocess.run(
            [sys.executable, "-m", "pytest", "-c", "tests/pytest.ini", "-n", "0", "-x", "-q", *shlex.split(tests)],
            cwd=SRC, env=environ, stdout=file, stderr=file).returncode
    if status == 1 and not re.search(r"\d+ failed", log.read_text().splitlines()[-1]):
        return "tests can't begin"
    return {0: "NOT NOTICED", 1: "noticed"}.get(status, f"pytest ended with {status}")


def main(wanted: list[str]) -> int:
    """Try the mutants, all or those whose names fit one of the patterns."""
    every = [Mutant(**entry) for path in sorted((SRC / "tests/mutants").glob("*.toml"))
             for entry in tomllib.loads(path.read_text())["mutant"]]
    mutants = [mutant for mutant in every if mutant.kernel == KERNEL]
    unknown = {pattern for pattern in wanted if not fnmatch.filter((mutant.name for mutant in mutants), pattern)}
    if unknown:
        print(f"no mutants of these names: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    OUT.mkdir(parents=True, exist_ok=True)
    mutants = [mutant for mutant in mutants
               if not wanted or any(fnmatch.fnmatch(mutant.name, pattern) for pattern in wanted)]
    # Tests of QEMU that fail anyway would notice every mutant.
    for tests in sorted({mutant.tests for mutant in mutants if mutant.is_for_qemu()}):
        copy_sources()
        result = tested_in_qemu(OUT / f"{tests}.log", tests)
        if result != "NOT NOTICED":
            print(f"without a mutant, {tests}: {result}; logs: {OUT}", file=sys.stderr)
            return 1
    noticed = tried = 0
    for mutant in mutants:
        begin = time.monotonic()
        result = mutant.run()
        tried += 1
        noticed += result == ("NOT NOTICED" if mutant.passes else "noticed")
        if mutant.passes and result == "NOT NOTICED":
            result = "passes"
        print(f"{mutant.name:40} {result:16} {time.monotonic() - begin:4.0f} s  {mutant.tests}", flush=True)
    shutil.rmtree(TREE, ignore_errors=True)
    print(f"logs: {OUT}\n{noticed} passed, {tried - noticed} failed")
    return int(noticed != tried or not tried)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
