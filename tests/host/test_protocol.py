# SPDX-License-Identifier: GPL-2.0
"""The driver's and the device's idea of the protocol are one and the same.

Both headers are compiled, and what they define is compared: every macro's value,
and every structure's size and fields.
"""

import re
import subprocess

import pytest

pytestmark = pytest.mark.stock_kernel("no guest")

OURS = "include/uapi/linux/virtio_blk_wce.h"
QEMUS = "include/standard-headers/linux/virtio_blk_wce.h"


def header_of_patches(env, folder):
    """QEMU's header, as the patches leave it."""
    names = subprocess.run([env.src / "scripts/qemu.sh", "--patches"], check=True, capture_output=True,
                           text=True).stdout.splitlines()
    tree = folder / "qemu"
    tree.mkdir(exist_ok=True)
    for name in names:
        # Of each patch only what it does to this file: the others are not there.
        parts = re.split(r"^(?=diff --git )", (env.src / "qemu-patches" / name).read_text(), flags=re.M)
        for part in parts:
            if part.startswith(f"diff --git a/{QEMUS} "):
                subprocess.run(["patch", "--strip=1", "--fuzz=0", "--batch"], cwd=tree,
                               input=part.rstrip("-\n ") + "\n", check=True, text=True)
    return tree / QEMUS


def definitions(header, folder, name):
    """{what: value} of all that a header defines, found by compiling it."""
    work = folder / name
    (work / "standard-headers/linux").mkdir(parents=True, exist_ok=True)
    (work / "standard-headers/linux/types.h").write_text("#include <stdint.h>\n")
    compiler = ["gcc", "-Wall", "-Werror", f"-I{work}"]

    macros = subprocess.run([*compiler, "-dM", "-E", str(header)],
                            check=True, capture_output=True, text=True).stdout
    names = re.findall(r"^#define (VIRTIO_BLK_\w+) \S", macros, re.M)
    text = header.read_text()
    structs = re.findall(r"^struct (\w+) \{(.*?)^\}", text, re.M | re.S)

    prints = [f'printf("{macro} %lld\\n", (long long)({macro}));' for macro in names]
    for struct, body in structs:
        prints.append(f'printf("sizeof {struct} %zu\\n", sizeof(struct {struct}));')
        for field in re.findall(r"(\w+)(?:\[\w*\])?;", body):
            place = f"struct {struct}, {field}"
            prints.append(f'printf("{struct}.{field} %zu %zu\\n", offsetof({place}), '
                          f'sizeof(((struct {struct} *)0)->{field}));')
    source = work / "definitions.c"
    source.write_text(f'#include "{header}"\n#include <stddef.h>\n#include <stdio.h>\n'
                      "int main(void)\n{\n\t" + "\n\t".join(prints) + "\n\treturn 0;\n}\n")
    subprocess.run([*compiler, "-o", str(work / "definitions"), str(source)], check=True)
    output = subprocess.run([str(work / "definitions")], check=True, capture_output=True, text=True)
    return dict(line.rsplit(" ", 1) if line.startswith(("V", "s")) and "." not in line
                else line.split(" ", 1) for line in output.stdout.splitlines())


@pytest.fixture
def both(env, folder):
    """What the two headers define."""
    return (definitions(env.src / OURS, folder, "driver"),
            definitions(header_of_patches(env, folder), folder, "device"))


def test_driver_and_device_agree(both):
    driver, device = both
    assert driver == device


def test_values_are_the_contract_s(both):
    driver, _ = both
    assert driver == {
        "VIRTIO_BLK_F_SET_WCE": "23",
        "VIRTIO_BLK_T_SET_WCE": "33",
        "VIRTIO_BLK_WCE_WRITETHROUGH": "0",
        "VIRTIO_BLK_WCE_WRITEBACK": "1",
        "sizeof virtio_blk_set_wce": "1",
        "virtio_blk_set_wce.wce": "0 1",
    }


@pytest.mark.parametrize("old, new", [
    (r"SET_WCE\t\t33", "SET_WCE\t\t34"),
    (r"__u8 wce", "__u16 wce"),
    (r"__u8 wce;", "__u8 wce; __u8 more;"),
    (r"#define VIRTIO_BLK_WCE_WRITEBACK.*", ""),
])
def test_a_difference_is_seen(env, folder, both, old, new):
    """The comparison itself can fail."""
    text = (env.src / OURS).read_text()
    changed = re.sub(old, new, text)
    assert changed != text
    other = folder / "virtio_blk_wce.h"
    other.write_text(changed)
    assert definitions(other, folder, "changed") != both[1]
