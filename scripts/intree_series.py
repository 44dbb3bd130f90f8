#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Makes a series of patches for the kernel's tree of what this repository has.

Usage: intree_series.py --needs | KERNEL OUT

The folder intree/ has one recipe for each patch, in the order of their names: the commit's message, a line
"---", what is done with files of this repository, and a diff of what the kernel's own files get besides. With
--needs the kernel's files that the recipes change are printed, one a line, and nothing is made. KERNEL is a
folder that has at least these files; it is left as it is. The patches and their cover letter, which "git am"
takes, are written to OUT.

What a recipe does with files, one a line:

  copy FROM [TO]     a file that the kernel does not have, at the same path if TO is not named
  merge FROM [REGEX] a C file that the kernel has, too: it gets the #include lines that it lacks, sorted in,
                     and what follows them, or only the lines of it that match, at the place for it

The names that the copies use are those that they have in the kernel: see RENAMED, and rust_imports.py.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from rust_imports import in_the_kernel_crate

SOURCE = Path(__file__).resolve().parents[1]
RECIPES = SOURCE / "intree"
# The release of the cover letter, and when it was made: the same sources give the same patches.
DATE = "2026-11-26T00:00:00+0000"
# What a text says of this repository alone.
OUT_OF_TREE = re.compile(r"^\.\. out of tree\n(.*\n)*?\.\. in tree\n+", re.M)
# Behind it go the constants of the bindings.
BODY_OF_BINDINGS = "RUST_CONST_HELPER_BLK_FEAT_ROTATIONAL"


class Recipe:
    """One patch: its message, what it does with files, and a diff."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = re.sub(r"\A(#.*\n)+\n*", "", path.read_text())
        self.message, rest = text.split("\n---\n", 1)
        operations, mark, diff = rest.partition("diff --git ")
        self.diff = mark + diff
        self.copies: list[tuple[str, str]] = []
        self.merges: list[tuple[str, str]] = []
        for line in operations.splitlines():
            words = line.split("#")[0].split()
            if not words:
                continue
            name, *args = words
            if name == "copy":
                self.copies += copies(args[0], args[-1])
            elif name == "merge":
                self.merges.append((args[0], args[1] if len(args) > 1 else ""))
            else:
                sys.exit(f"{path}: what is '{line}'?")

    def needs(self) -> set[str]:
        """The kernel's files that it changes."""
        patched = set(re.findall(r"^--- a/(\S+)$", self.diff, re.M))
        return patched | {name for name, _ in self.merges}


def copies(source: str, target: str) -> list[tuple[str, str]]:
    """The files below a folder, or the one file."""
    if not (SOURCE / source).is_dir():
        return [(source, target)]
    files = sorted(path for path in (SOURCE / source).rglob("*") if path.is_file())
    return [(str(path.relative_to(SOURCE)), str(target / path.relative_to(SOURCE / source))) for path in files]


def merged(ours: str, theirs: str, only: str) -> str:
    """The kernel's file with what ours has and it lacks."""
    ours = re.sub(r"\A(//.*\n|/\*(.|\n)*?\*/\n|\n)+", "", ours)
    includes = [line for line in ours.splitlines() if line.startswith("#include <")]
    includes += [f"#include <{name}>" for name in re.findall(r'^#include ".*/uapi/(.*)"$', ours, re.M)]
    body = re.sub(r"^#include .*\n\n?", "", ours, flags=re.M).strip("\n")
    if only:
        includes = [line for line in includes if re.search(only, line)]
        body = "\n".join(line for line in body.splitlines() if re.search(only, line))
    lines = theirs.rstrip("\n").split("\n")
    for line in includes:
        if line not in lines:
            lines.insert(place_of(line, lines), line)
    constants = [number for number, line in enumerate(lines) if BODY_OF_BINDINGS in line]
    if body and constants:
        lines[constants[0] + 1:constants[0] + 1] = [line for line in body.splitlines() if line]
    elif body:
        lines += ["", body]
    return "\n".join(lines) + "\n"


def place_of(include: str, lines: list[str]) -> int:
    """Where among the sorted lines an include goes: behind the last one of its folder that comes before it."""
    folder = include.split("/")[0]
    after = [number for number, line in enumerate(lines)
             if line.startswith(folder) and line.endswith(">") and line < include]
    return after[-1] + 1


class Series:
    """A repository in which the recipes become commits, and those become patches."""

    def __init__(self, recipes: list[Recipe], kernel: Path, out: Path) -> None:
        self.recipes = recipes
        self.out = out
        self.tree = out / "tree"
        self.moved = {source: target for recipe in recipes for source, target in recipe.copies
                      if source != target}
        author = re.search(r"^Maintainer: (.*) <(.*)>$", (SOURCE / "debian/control").read_text(), re.M)
        assert author, "debian/control names no maintainer"
        self.author = f"{author[1]} <{author[2]}>"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        self.environment |= {
            f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", author[1]), ("EMAIL", author[2]), ("DATE", DATE))}
        self.environment |= {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        self.tree.mkdir(parents=True)
        for name in sorted(set().union(*(recipe.needs() for recipe in recipes))):
            self.write(name, (kernel / name).read_text())
        self.git("init", "--quiet", "--initial-branch=base")
        self.commit("base")

    def git(self, *args: str, data: str | None = None) -> None:
        subprocess.run(["git", *args], cwd=self.tree, env=self.environment, input=data, text=True, check=True)

    def write(self, name: str, text: str) -> Path:
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def commit(self, message: str) -> None:
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--file=-", data=message)

    def take(self, recipe: Recipe) -> None:
        """One commit."""
        for source, target in recipe.copies:
            if (self.tree / target).exists():
                sys.exit(f"{recipe.path}: {target} is there already")
            text = (SOURCE / source).read_text()
            if target.endswith(".rs"):
                text = in_the_kernel_crate(text)
            # The kernel's helpers are one file to the compiler.
            text = text.replace('\n#include "helpers.h"\n', "")
            for old, new in self.moved.items():
                text = text.replace(old, new)
            text = OUT_OF_TREE.sub("", text).rstrip("\n") + "\n"
            path = self.write(target, text)
            path.chmod((SOURCE / source).stat().st_mode & 0o755 | 0o600)
            if text.startswith("#!"):
                path.chmod(0o755)
        for name, only in recipe.merges:
            self.write(name, merged((SOURCE / name).read_text(), (self.tree / name).read_text(), only))
        if recipe.diff:
            self.git("apply", "--recount", "--whitespace=error", "-", data=recipe.diff)
        self.commit(f"{recipe.message.strip()}\n\nSigned-off-by: {self.author}\n")

    def make(self) -> None:
        """All of them, and the letter."""
        for recipe in self.recipes:
            self.take(recipe)
        self.git("format-patch", "--quiet", "--cover-letter", "--subject-prefix=RFC PATCH", "--zero-commit",
                 "--no-signature", "--output-directory", str(self.out), f"HEAD~{len(self.recipes)}")
        subject, text = re.sub(r"\A(#.*\n)+\n*", "", (RECIPES / "cover-letter").read_text()).split("\n\n", 1)
        letter = self.out / "0000-cover-letter.patch"
        letter.write_text(letter.read_text().replace("*** SUBJECT HERE ***", subject)
                          .replace("*** BLURB HERE ***", text.strip()))
        shutil.rmtree(self.tree)


def main() -> None:
    recipes = [Recipe(path) for path in sorted(RECIPES.glob("[0-9]*"))]
    if sys.argv[1:] == ["--needs"]:
        print("\n".join(sorted(set().union(*(recipe.needs() for recipe in recipes)))))
    elif len(sys.argv) == 3:
        Series(recipes, Path(sys.argv[1]), Path(sys.argv[2])).make()
    else:
        sys.exit(__doc__)


main()
