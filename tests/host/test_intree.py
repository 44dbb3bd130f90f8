# SPDX-License-Identifier: GPL-2.0
"""The series for the kernel's own tree: it is made of this repository, applies, and checkpatch has nothing to say.

That what comes out of it can be built and works there is for "make intree" to say, which takes long.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

# Roots of the layer's crate, which the kernel's own ones stand for.
ROOTS = {"rust/kernel/kernel_ext.rs", "rust/kernel/block.rs", "rust/kernel/sync.rs", "rust/kernel/sync/rcu.rs"}
# What serves an older kernel alone.
OTHER_RELEASES = {"rust/kernel/linux_7_2.rs"}
RENAMED = {"rust/kernel/block/mq.rs": "rust/kernel/block/multi_queue.rs"}


@pytest.fixture(scope="module")
def series(env):
    """The folder of the patches."""
    made = subprocess.run([env.src / "scripts/intree.sh", "--series"], stdout=subprocess.PIPE, text=True, check=True)
    return Path(made.stdout.strip())


def patches(series):
    """All but the cover letter."""
    return sorted(path for path in series.glob("*.patch") if not path.name.startswith("0000-"))


@pytest.fixture(scope="module")
def tree(series, tmp_path_factory):
    """The kernel's files that the series changes, and those that it adds, after "git am"."""
    folder = tmp_path_factory.mktemp("tree")
    shutil.copytree(series.parent / "base", folder, dirs_exist_ok=True)
    (folder / ".complete").unlink()
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
               **{f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}}
    for command in (["init", "--quiet"], ["add", "--all", "--force"], ["commit", "--quiet", "--message", "base"],
                    ["am", "--quiet", "--whitespace=error-all", *map(str, patches(series))]):
        subprocess.run(["git", *command], cwd=folder, env=environ, check=True)
    return folder


def test_one_patch_for_each_recipe(env, series):
    """And each is in the cover letter, which has a subject and a text."""
    recipes = sorted((env.src / "intree").glob("[0-9]*"))
    letter = (series / "0000-cover-letter.patch").read_text()
    assert len(patches(series)) == len(recipes) > 5
    assert "***" not in letter
    for number, (path, recipe) in enumerate(zip(patches(series), recipes), 1):
        text = path.read_text()
        subject = recipe.read_text().splitlines()[1]
        assert re.search(rf"^Subject: \[RFC PATCH {number:02}/{len(recipes)}\] ", text, re.M), path
        assert subject in re.sub(r"\n ", " ", text)
        assert subject[:40] in letter


def test_it_applies_and_is_all_there(env, tree):
    """Every file of layer and driver has its place in the tree, under the names that things have there."""
    files = [path for folder in ("rust/kernel", "rust/helpers", "drivers", "include", "tools")
             for path in (env.src / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert len(files) > 50
    for path in files:
        name = str(path.relative_to(env.src))
        if name not in ROOTS | OTHER_RELEASES and path.name != "helpers.h":
            assert (tree / RENAMED.get(name, name)).exists(), name
    for path in tree.rglob("*.rs"):
        assert not re.search(r"kernel_ext|linux_7_2", path.read_text()), path
    for path in tree.rglob("*.rst"):
        assert "out of tree" not in path.read_text(), path


def test_checkpatch(env, series):
    """In the strictest mode. Whether MAINTAINERS has to be changed it only asks."""
    kdir = subprocess.run([env.src / "scripts/kdir.sh"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    result = subprocess.run(
        [f"{kdir}/scripts/checkpatch.pl", "--no-tree", "--strict", "--terse", "--no-summary", "--show-types",
         "--ignore", "FILE_PATH_CHANGES", *patches(series)],
        cwd=series, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0 and result.stdout == "", result.stdout
