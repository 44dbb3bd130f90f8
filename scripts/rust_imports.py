# SPDX-License-Identifier: GPL-2.0
"""What a Rust file of this repository looks like as a part of the kernel's tree.

There the layer is part of the kernel crate, whose name it has as well as its own: of two "use" declarations one
is left, in the kernel's style.
"""

import re
import subprocess

# The layer's crate, and the module that the kernel crate has another one of the same name of.
CRATES = ("kernel", "kernel_ext")
RENAMED = (r"\bkernel_ext\b", "kernel"), (r"\bmq::", "multi_queue::")
# What a line is for: see linux_7_2.rs.
OF_7_2 = (r"^ *#\[cfg\(linux_7_2\)\]\n.*\n", ""), (r"^ *#\[cfg\(not\(linux_7_2\)\)\]\n", "")

Tree = dict[str, "Tree"]


def in_the_kernel_crate(text: str) -> str:
    """The file's text, as rustfmt has it."""
    declarations = [match for match in re.finditer(r"^use (\w+)::(.*?);\n", text, re.M | re.S)
                    if match[1] in CRATES]
    if len(declarations) > 1:
        tree: Tree = {}
        for match in declarations:
            add(tree, re.sub(r"//[^\n]*", "", match[2]))
        for match in reversed(declarations[1:]):
            text = text[:match.start()] + text[match.end():]
        first = declarations[0]
        text = f"{text[:first.start()]}use kernel::{shown(tree, 4)};\n{text[first.end():]}"
    for old, new in RENAMED + OF_7_2:
        text = re.sub(old, new, text, flags=re.M)
    return subprocess.run(["rustfmt", "--edition=2021"], input=text, capture_output=True, text=True,
                          check=True).stdout


def add(tree: Tree, text: str) -> None:
    """Puts a path, or a list of paths in braces, into a tree."""
    text = text.strip()
    if text.startswith("{"):
        for part in parts(text[1:-1]):
            add(tree, part)
        return
    name, _, rest = text.partition("::")
    # Where a module is named, and so are things in it, it is one of these.
    if rest and tree.get(name) == {}:
        tree[name]["self"] = {}
    if rest:
        add(tree.setdefault(name, {}), rest)
    elif tree.setdefault(name, {}):
        tree[name].setdefault("self", {})


def parts(text: str) -> list[str]:
    """What commas separate, but for those within braces."""
    found, depth, start = [], 0, 0
    for position, character in enumerate(text + ","):
        depth += (character == "{") - (character == "}")
        if character == "," and not depth:
            found.append(text[start:position])
            start = position + 1
    return [part for part in found if part.strip()]


def order(name: str) -> tuple[int, str]:
    """As rustfmt sorts: modules, then types, then constants."""
    bare = name.split(" as ")[0]
    kind = 0 if bare == "self" else 1 if bare[0].islower() else 3 if bare.isupper() and len(bare) > 1 else 2
    return kind, name


def shown(tree: Tree, indent: int) -> str:
    """A tree as the kernel writes it: on one line if that is short and there are no braces in it."""
    items = [name + ("::" + shown(tree[name], indent + 4) if tree[name] else "")
             for name in sorted(tree, key=order)]
    if len(items) == 1 and items[0] != "self":
        return items[0]
    line = "{" + ", ".join(items) + "}"
    if "{" not in line[1:] and indent + len(line) < 76:
        return line
    pad = " " * indent
    return "{\n" + "".join(f"{pad}{item},\n" for item in items[:-1]) + f"{pad}{items[-1]}, //\n{pad[4:]}}}"
