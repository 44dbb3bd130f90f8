# SPDX-License-Identifier: GPL-2.0
"""The specification, as text and as a patch to virtio's, has the header's names and numbers.

test_protocol.py compares the header with QEMU's.
"""

import re

import pytest

pytestmark = pytest.mark.stock_kernel("no guest")

HEADER = "include/uapi/linux/virtio_blk_wce.h"
TEXT = "Documentation/virtio-blk-set-wce.rst"
FOLDER = "Documentation/virtio-spec"
# A feature bit and a request type are VIRTIO_BLK_F_* and VIRTIO_BLK_T_*.
NUMBERS = r"^#define\s+(VIRTIO_BLK_[FT]_SET_WCE)\s+(\d+)"
STRUCT = r"struct virtio_blk_set_wce \{\s*(?:__)?u8 (\w+);\s*\}"


def patch(env):
    """The only patch to the specification."""
    (path,) = (env.src / FOLDER).glob("*.patch")
    return path.read_text()


def added(text):
    """What a patch adds, as one text."""
    return "\n".join(line[1:] for line in text.splitlines() if re.match(r"\+(?!\+\+ )", line))


def numbers(source, text):
    """{name: number}, as a source says them."""
    pattern = {"header": NUMBERS,
               "text": r"^``(VIRTIO_BLK_F_SET_WCE)`` \((\d+)\)|type ``(VIRTIO_BLK_T_SET_WCE)`` \((\d+)\)",
               "patch": r"^\\item\[(VIRTIO_BLK_F_SET_WCE) \((\d+)\)\]|" + NUMBERS,
               "test device": r"^(?:pub )?const (VIRTIO_BLK_[FT]_SET_WCE): u32 = (\d+);"}[source]
    return {name: int(number) for name, number in
            (tuple(filter(None, found)) for found in re.findall(pattern, text, re.M))}


def sources(env):
    """Everything that says them."""
    device = "".join(path.read_text() for path in sorted((env.src / "tests/device/src").glob("*.rs")))
    return {"header": (env.src / HEADER).read_text(), "text": (env.src / TEXT).read_text(),
            "patch": added(patch(env)), "test device": device}


def test_numbers(env):
    said = {source: numbers(source, text) for source, text in sources(env).items()}
    assert set(said["header"]) == {"VIRTIO_BLK_F_SET_WCE", "VIRTIO_BLK_T_SET_WCE"}
    assert all(found == said["header"] for found in said.values()), said


@pytest.mark.parametrize("source", ["text", "patch", "test device"])
def test_another_number_is_seen(env, source):
    text = sources(env)[source]
    for number in numbers(source, text).values():
        changed = re.sub(rf"\b{number}\b", str(number + 1), text)
        assert numbers(source, changed) != numbers(source, text)


def test_payload(env):
    assert {source: re.findall(STRUCT, text) for source, text in sources(env).items()
            if source != "test device"} == {"header": ["wce"], "text": ["wce"], "patch": ["wce"]}


def test_driver_has_no_numbers_of_its_own(env):
    """They come from the header, through bindgen."""
    for folder in ("drivers", "rust"):
        for path in (env.src / folder).rglob("*.rs"):
            assert not re.search(r"SET_WCE\b[^=\n]*=\s*\d", path.read_text()), path
    assert "virtio_blk_wce.h" in (env.src / "rust/bindings/bindings_helper.h").read_text()


def test_patch_names_what_the_text_names(env):
    """No status, request or feature is in one of the two only; the text also speaks of other extensions."""
    names = {source: set(re.findall(r"VIRTIO_BLK_(?:[FST]_\w+)", text)) for source, text in
             (("text", sources(env)["text"]), ("patch", patch(env)))}
    assert names["text"] - names["patch"] == {
        # Writes of other types: what the specification says of writes holds for them.
        "VIRTIO_BLK_T_OUT", "VIRTIO_BLK_T_WRITE_ZEROES", "VIRTIO_BLK_T_ZONE_APPEND"} - names["patch"]
    ours = {name for name in names["patch"] if name.endswith("SET_WCE")} | {
        f"VIRTIO_BLK_S_{status}" for status in ("OK", "IOERR", "UNSUPP")}
    assert ours <= names["text"]


def test_patch_is_whole(env):
    """Each part of it has as many lines as it says: nobody has edited it by hand."""
    hunks = re.split(r"^(?=@@ )", patch(env).split("\nbase-commit:")[0], flags=re.M)[1:]
    assert hunks
    for hunk in hunks:
        old, new = (int(count) for count in re.match(r"@@ -\d+,(\d+) \+\d+,(\d+) @@", hunk).groups())
        lines = hunk.rstrip("\n").split("\n")[1:]
        assert sum(line[:1] in ("-", " ", "") for line in lines) == old, hunk
        assert sum(line[:1] in ("+", " ", "") for line in lines) == new, hunk


def test_consent_is_in_both(env):
    """What a change by the host waits for; the specification calls the field writeback, the text wce."""
    text, latex = (re.sub(r"\s+", " ", source) for source in (sources(env)["text"], sources(env)["patch"]))
    assert "MUST go on writing through until the driver has requested write back" in text
    assert "until the driver has requested writeback mode" in latex
    for number in ("23", "33", "29"):
        assert re.search(rf"\b{number}\b", text) and re.search(rf"\b{number}\b", patch(env))
