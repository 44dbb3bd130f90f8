# SPDX-License-Identifier: GPL-2.0
"""What the documents say is so: commands are run, and what they name of the source is there."""

import re
import tomllib

import pytest

from prove import __main__ as prove
from prove.controls import BREAKS
from prove.trials import TRIALS
from vbw.machine import Config, Disk, file_node, raw_node
from vbw.vm import STOCK, wait_for_disks

assert prove, "fills the list of trials"

# Commands of README.md, and who runs each: a test, and what of the command is in there.
RUN_BY = {
    "make demo": ("host/test_commands.py", '"demo.py"'),
    "make check": ("../scripts/check.sh", "pytest"),
    "make qemu_install PREFIX=": ("host/test_qemu_install.py", "qemu-install.sh"),
    "make module": ("host/test_build.py", "module.sh"),
    "make kdir KERNEL=": ("host/test_build.py", "kdir.sh"),
    "make deb": ("host/test_package.py", "deb.sh"),
    'echo "softdep ': ("host/test_root_disk.py", "recipe(env)"),
    "update-initramfs -u": ("host/test_root_disk.py", "recipe(env)"),
    "apt-get install dkms ": ("host/test_dkms.py", "README.md"),
    "dkms ": ("host/test_dkms.py", "README.md"),
}


def blocks(text, heading):
    """The indented blocks of a page from a heading, or a bold word, to the next heading."""
    part = text.split(f"\n{heading}", 1)[1]
    part = re.split(r"^#+ ", part, maxsplit=1, flags=re.M)[0]
    return [[line[4:] for line in block.splitlines()] for block in re.findall(r"^\n((?:    .+\n)+)", part, re.M)]


def without_comment(line):
    """A command without what is said about it."""
    return re.sub(r"\s+# .*", "", line)


@pytest.fixture
def readme(env):
    return (env.src / "README.md").read_text()


def in_guest(readme):
    """The commands of README.md that are for a guest: of the switch, and of the two ways to load the driver."""
    switch, = blocks(readme, "## The switch")
    beside = blocks(readme, "**Beside `virtio_blk`**")[0]
    instead = blocks(readme, "**Instead of `virtio_blk`**")[0]
    return switch, [*map(without_comment, beside)], [*map(without_comment, instead)]


def test_every_command_is_run(env, readme):
    """Each one either below, or by the test that is named above."""
    demo = re.search(r"^    2\. .*?(?=^\S)", readme, re.M | re.S).group()
    here = [line for lines in in_guest(readme) for line in lines]
    commands = [without_comment(line[4:]) for line in readme.replace(demo, "").splitlines() if line.startswith("    ")]
    others = [command for command in commands if command not in here]
    assert len(here) > 8 and len(others) > 8
    for command in others:
        names = [name for name in RUN_BY if command.startswith(name)]
        assert names, f"nobody runs: {command}"
        path, words = RUN_BY[names[0]]
        assert words in (env.src / "tests" / path).read_text()
    assert not [name for name in RUN_BY if not any(command.startswith(name) for command in others)]


def test_switch(boot, disk, readme):
    """The block of README.md shows what a guest says."""
    switch, _, _ = in_guest(readme)
    vm = boot(Config(disks=[disk()]))
    said = []
    for line in switch:
        if line.startswith("# "):
            said += [line, *vm.guest(line[2:]).splitlines()]
    assert said == switch


@pytest.fixture
def two_disks(folder):
    disks = []
    for number in range(2):
        image = folder / f"disk{number}.img"
        with image.open("wb") as file:
            file.truncate(1 << 20)
        disks.append(Disk(raw_node(file_node(image)), name=f"disk{number}"))
    return disks


DRIVERS = "for d in vda vdb; do basename $(readlink /sys/block/$d/device/driver); done"


def test_driver_beside_the_other(boot, two_disks, readme):
    """A second disk changes hands, and goes back by the same lines with the names exchanged."""
    _, beside, _ = in_guest(readme)
    vm = boot(Config(disks=two_disks), driver=STOCK)
    vm.guest("\n".join(beside) + "\n" + wait_for_disks(2))
    assert vm.guest(DRIVERS).split() == ["virtio_blk", "virtio_blk_wce"]
    back = "\n".join(beside[1:]).replace("virtio_blk_wce", "ours").replace("virtio_blk", "virtio_blk_wce")
    vm.guest(back.replace("ours", "virtio_blk") + "\n" + wait_for_disks(2))
    assert vm.guest(DRIVERS).split() == ["virtio_blk", "virtio_blk"]


def test_driver_instead_of_the_other(boot, two_disks, readme):
    _, _, instead = in_guest(readme)
    vm = boot(Config(disks=two_disks), driver=STOCK)
    vm.guest("\n".join(instead) + "\n" + wait_for_disks(2))
    assert vm.guest(DRIVERS).split() == ["virtio_blk_wce", "virtio_blk_wce"]


def test_figures_of_durability(env, readme):
    """The first screen's are those of the table of the judge."""
    table = (env.src / "Documentation" / "testing.md").read_text()
    lost, acknowledged, none_of = re.search(
        r"lost ([\d,]+) of ([\d,]+)\s+acknowledged writes\. With this, of ([\d,]+) none", readme).groups()
    assert re.search(rf"^\| `stock-pair` \(control\) \| {acknowledged} \|.*\| {lost} \|$", table, re.M)
    assert re.search(rf"^\| all but controls and others \| {none_of} \|.*\| 0 \|$", table, re.M)


def test_figures_of_cost(env, readme):
    """And those of what is executed by requests: by all but synchronous writes in write through, and by those."""
    table = (env.src / "Documentation" / "measurements.md").read_text().split("| guest instructions for a request", 1)[1]
    rows = [line.split(" | ") for line in table.split("\n\n", 1)[0].splitlines()[2:]
            if not line.startswith("| switch ")]
    through = [float(row[12]) for row in rows if "write through" in row[0]]
    decided, whole = zip(*((float(row[11]), float(row[12])) for row in rows if "write through" not in row[0]))
    text = " ".join(readme.split())
    assert f"{min(whole):.2f} to {max(whole):.2f} of the instructions" in text
    assert f"what it calls {min(decided):.2f} to {max(decided):.2f}" in text
    assert f"takes {through[0]:.2f} times" in text


def test_links(env):
    """Whatever a page links to is there."""
    for page in [env.src / "README.md", *(env.src / "Documentation").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


# What reviewers are told

def fields(text, name):
    """The literals in all fields of that name."""
    found = re.findall(rf"^:{name}: (.*(?:\n[^:\n].*)*)", text, re.M)
    return [re.findall(r"``([^`]+)``", each) for each in found]


@pytest.fixture
def page(env):
    return (env.src / "Documentation" / "reviewers.rst").read_text()


def test_rules_have_code(env, page):
    """A function is in the files that are named with it, or in the patches."""
    driver = env.src / "drivers/block/virtio_blk_wce"
    patches = "".join(path.read_text() for path in (env.src / "qemu-patches").rglob("0*.patch"))
    rules = fields(page, "code")
    assert len(rules) == len(fields(page, "mutants")) == len(fields(page, "judge")) == 9
    for names in rules:
        files = [name for name in names if name.endswith(".rs")]
        source = "".join((driver / name).read_text() for name in files)
        for name in names:
            if name.endswith("()"):
                assert re.search(rf"^[+ ].*\b{name[:-2]}\(", patches, re.M), name
            elif name not in files:
                assert re.search(rf"\b{name.split('::')[-1]}\(", source), name
                assert all(part in source for part in name.split("::")[:-1]), name


def mutants(env):
    """All mutants of the driver."""
    return [entry for path in sorted((env.src / "tests/mutants").glob("*.toml"))
            for entry in tomllib.loads(path.read_text())["mutant"]]


def test_rules_have_mutants(env, page):
    names = {entry["name"] for entry in mutants(env)}
    for rule in fields(page, "mutants"):
        for name in rule:
            if name.startswith("/"):
                patches = (env.src / "qemu-patches").rglob("0*.patch")
                assert any(f'"{name}"' in path.read_text() for path in patches), name
            else:
                assert name in names
    number = re.search(r"The (\d+) mutants ``search-…``", page)
    assert int(number.group(1)) == sum(name.startswith("search-") for name in names)


def test_rules_have_trials(page):
    text = re.sub(r"controls? (``[\w-]+``(?:, ``[\w-]+``)*)", lambda match: match.group(1).replace("``", "//"), page)
    for trials in fields(text, "judge"):
        assert trials
        for name in trials:
            assert not TRIALS[name].control and not TRIALS[name].red, name
    controls = re.findall(r"//([\w-]+)//", text)
    assert {name for name in controls} == {*BREAKS, "stock-pair"}
    assert all(TRIALS[name].control for name in controls)


def test_paths(env, page):
    """Of the tests and documents that it names."""
    for name in re.findall(r"``((?:tests|Documentation)/[\w./-]+|[\w-]+\.(?:rst|md))``", page):
        place = env.src / name
        # A unit test of the series.
        if name.startswith("tests/unit/"):
            patches = (env.src / "qemu-patches").rglob("0*.patch")
            place = next((path for path in patches if name in path.read_text()), place)
        assert place.exists() or (env.src / "Documentation" / name).exists(), name


def test_every_break_fits(env):
    """A mutant, or a control of the judge, that does not apply any more would show nothing."""
    for entry in mutants(env):
        assert (env.src / entry["file"]).read_text().count(entry["old"]) == 1, entry["name"]
    for name, broken in BREAKS.items():
        assert (env.src / broken.path).read_text().count(broken.old) == 1, name
