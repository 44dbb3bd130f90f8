# SPDX-License-Identifier: GPL-2.0
"""How the driver's files know one another: one way."""

import re
from graphlib import CycleError, TopologicalSorter

import pytest

pytestmark = pytest.mark.stock_kernel("no guest")

ROOT = "driver"


def code(text):
    """A file without comments, and without its tests, which come last."""
    text = re.sub(r"//.*", "", text)
    return re.split(r"^(?:#\[.*\]\s+)+mod tests \{", text, maxsplit=1, flags=re.M)[0]


def first_names(text):
    """The first names of a path, or of the paths in braces."""
    text = text.strip()
    if not text.startswith("{"):
        return re.findall(r"\A\w+", text)
    names, depth = [], 0
    for word in re.findall(r"\w+|::|[{},]", text):
        depth += {"{": 1, "}": -1}.get(word, 0)
        if word in ("{", ",") and depth == 1:
            names.append(None)
        elif depth == 1 and names and names[-1] is None and re.match(r"\w", word):
            names[-1] = word
    return [name for name in names if name]


def known(name, files):
    """The other files of which a file uses something. What is no file's is the root's."""
    text = code(files[name])
    assert "super::" not in text, "paths of this crate begin with crate::"
    uses = re.findall(r"^(?:pub(?:\(crate\))? )?use crate::(.*?);", text, re.M | re.S)
    names = {name for use in uses for name in first_names(use)}
    rest = re.sub(r"^(?:pub(?:\(crate\))? )?use .*?;", "", text, flags=re.M | re.S)
    names |= set(re.findall(r"\bcrate::(\w+)", rest))
    if name == ROOT:
        # It has them in reach by their names.
        names |= set(re.findall(r"(?<!:)\b(\w+)::", rest)) & files.keys()
    return {each if each in files else ROOT for each in names} - {name}


def circle(texts):
    """Files that know one another in a circle, if there are any: {name: text}."""
    try:
        TopologicalSorter({name: known(name, texts) for name in texts}).prepare()
    except CycleError as error:
        # What comes after is known by what comes before.
        return " → ".join(reversed(error.args[1]))
    return None


@pytest.fixture
def texts(env):
    folder = env.src / "drivers/block/virtio_blk_wce"
    found = {path.stem: path.read_text() for path in folder.glob("*.rs")}
    assert set(re.findall(r"^mod (\w+);", found[ROOT], re.M)) == found.keys() - {ROOT}
    return found


def test_one_way(texts):
    """No file of the driver uses what uses it."""
    assert "disk" in known("request", texts) and "cache" in known("disk", texts) and "name" in known(ROOT, texts)
    assert circle(texts) is None


def test_types_have_their_functions(texts):
    """A function of a type is where the type is. Else who calls it knows a file without naming it."""
    found = 0
    for name, text in texts.items():
        text = code(text)
        types = re.findall(r"\b(?:struct|enum|union) (\w+)", text)
        for line in re.findall(r"^impl\b.*", text, re.M):
            if " for " not in line:
                found += 1
                assert re.sub(r"^impl(?:<.*?>)? ", "", line).split("<")[0].strip(" {") in types, f"{name}.rs: {line}"
    assert found >= 10


@pytest.mark.parametrize("name, line, found", [
    ("limits", "use crate::request;", "limits → request → limits"),
    ("switch", "use crate::{cache_type::{self, GROUP}, name};", "switch → cache_type → switch"),
    ("command", "fn f() { crate::control::mode() }", "command → control → command"),
    # The root may use all others, so nothing that it uses may use the root.
    ("name", "type Module = crate::LocalModule;", f"name → {ROOT} → name"),
    ("name", "// use crate::request;", None),
])
def test_a_circle_is_found(texts, name, line, found):
    """Of two files at least; which one of several is found is not said."""
    text, mark, tests = texts[name].partition("\n#[")
    circles = circle(texts | {name: f"{text}\n{line}\n{mark}{tests}"})
    if found is None:
        assert circles is None
    else:
        assert circles and f"{' → '.join(found.split(' → ')[:2])}" in f"{circles} → {circles}"
