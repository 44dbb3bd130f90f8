# SPDX-License-Identifier: GPL-2.0
"""The layer is sound for any safe driver: what would break it does not compile. Its examples do.

Each file of tests/layer is part of a driver, and shows one rule. As it stands it compiles. With a cfg of the
name unsound it does what the rule forbids, and the compiler has to say so, in the line that has a comment
"//~ NAME CODE", or is followed by one "//~^ NAME CODE", and with this code, or "lifetime" for an error that
has none. So nothing fails to compile for another reason than the one that is meant.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2]
FILES = sorted((SOURCE / "tests/layer").glob("*.rs"))
CFG = re.compile(r'cfg\(unsound = "(\w+)"\)')
EXAMPLE = re.compile(r"^ *(//[/!]) ```(\w*)\n((?: *\1.*\n)*?) *\1 ```\n", re.M)
EXPECTED = re.compile(r"//~(\^?) (\w+) (\w+)$")


def forbidden():
    """All (file, name) of things that a driver must not be able to do."""
    return [(file, name) for file in FILES
            for name in dict.fromkeys(CFG.findall(file.read_text()))]


def examples():
    """The (name, kind, code) of all examples in the documentation of the layer's items."""
    for file in sorted((SOURCE / "rust/kernel").rglob("*.rs")):
        name = str(file.relative_to(SOURCE / "rust/kernel").with_suffix("")).replace("/", "-")
        for number, match in enumerate(EXAMPLE.finditer(file.read_text())):
            lines = [line.strip()[4:] for line in match.group(3).splitlines()]
            # Lines that readers of the documentation do not see.
            code = [re.sub("^# ?(?!\\[)", "", line) for line in lines]
            yield pytest.param(match.group(2), "\n".join(code), id=f"{name}-{number}")


@pytest.fixture(scope="module")
def command(env):
    """How Kbuild compiles the driver, without what says where from and where to, and the folder for it."""
    work = subprocess.run([env.src / "scripts/module.sh", "--objects"], stdout=subprocess.PIPE, text=True,
                          check=True).stdout.strip()
    driver = Path(work) / "drivers/block/virtio_blk_wce/.driver.o.cmd"
    saved = re.search("^savedcmd_.* := (.*)$", driver.read_text(), re.M).group(1).split(" ; ")[0]
    saved = re.sub(r" --(emit|out-dir)[= ]\S*| \S*/driver\.rs\b", "", saved)
    assert "--extern kernel_ext=" in saved
    return saved, work


def errors(command, folder, file, *cfgs):
    """{(line, code)} of the compiler's errors."""
    saved, work = command
    result = subprocess.run(
        f"{saved} --cap-lints allow --crate-type lib --error-format json {' '.join(cfgs)} "
        f"--emit obj=layer.o --out-dir {folder} -o {folder}/layer.o {file}",
        shell=True, cwd=work, capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "RUSTC_BOOTSTRAP": "1"})
    messages = [json.loads(line) for line in result.stderr.splitlines()]
    (folder / "output").write_text("".join(message["rendered"] for message in messages))
    found = set()
    for number, message in enumerate(messages):
        if message["level"] == "error" and message["spans"]:
            code = (message["code"] or {}).get("code", "lifetime")
            found.add((line_of(messages[number:], file), code))
    assert bool(found) == (result.returncode != 0), result.stderr
    return found


def line_of(messages, file):
    """The line of an error: the first one of the file that it, or a note that follows, leads to."""
    for message in messages:
        for span in sorted(message["spans"], key=lambda span: not span["is_primary"]):
            # What a macro is made of lies elsewhere than the call of it.
            while span and Path(span["file_name"]) != file:
                span = (span["expansion"] or {}).get("span")
            if span:
                return span["line_start"]
    return 0


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_is_right_compiles(command, folder, file):
    assert errors(command, folder, file) == set(), (folder / "output").read_text()


@pytest.mark.parametrize("file, name", forbidden(), ids=lambda value: getattr(value, "stem", value))
def test_what_is_unsound_does_not(command, folder, file, name):
    expected = {(number - len(match.group(1)), match.group(3))
                for number, line in enumerate(file.read_text().splitlines(), 1)
                for match in EXPECTED.finditer(line) if match.group(2) == name}
    assert expected, "no line says what the compiler says"
    found = errors(command, folder, file, "--cfg unsound", f"--cfg 'unsound=\"{name}\"'")
    assert found == expected, (folder / "output").read_text()


@pytest.mark.parametrize("kind, code", examples())
def test_example_compiles(command, folder, kind, code):
    """As the kernel's own: in a function, with what every driver has in scope."""
    assert kind == "", "there are no examples that are not compiled"
    file = folder / "example.rs"
    file.write_text(f"//! An example.\n#[path = \"{SOURCE}/tests/layer/support/module.rs\"]\nmod module;\n"
                    "use kernel::prelude::*;\nuse module::LocalModule;\n"
                    "const __LOG_PREFIX: &[u8] = b\"example\\0\";\n"
                    f"/// Shows it.\npub fn example() {{\n{code}\n}}\n")
    assert errors(command, folder, file) == set(), (folder / "output").read_text()
