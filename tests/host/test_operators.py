# SPDX-License-Identifier: GPL-2.0
"""Documentation/operators.rst: every command in it does what the page shows."""

import json
import re
import time

import pytest
from qemu.qmp import ExecuteError

from vbw.machine import Config, Disk, file_node, flush_fails_node, raw_node

PAGE = "Documentation/operators.rst"


def steps(text):
    """(prompt, command, the lines that are shown below it) of all blocks, in their order."""
    found = []
    for line in text.splitlines():
        prompt = re.match(r"    (guest#|qmp[<>]) (.*)", line)
        if prompt:
            found.append((prompt.group(1), prompt.group(2), []))
        elif line.startswith("    ") and found and found[-1] is not None:
            found[-1][2].append(line[4:])
        elif found:
            # The end of a block: what is indented later belongs to no command.
            found.append(None)
    return [step for step in found if step]


def test_steps_are_found():
    text = "x::\n\n    guest# a\n    one\n    two\n    qmp> {}\n    qmp< {}\n\nand::\n\n    virsh b\n"
    assert steps(text) == [("guest#", "a", ["one", "two"]), ("qmp>", "{}", []), ("qmp<", "{}", [])]


@pytest.fixture
def vm(boot, image, folder):
    """A machine as the page says."""
    other = folder / "other.img"
    with other.open("wb") as file:
        file.truncate(64 << 20)
    disks = [Disk(raw_node(file_node(image)), name="disk0", props={"set-wce": True}),
             Disk(flush_fails_node(other, once=False), name="disk1", props={"set-wce": True})]
    machine = boot(Config(disks=disks))
    # There has to be something to flush.
    machine.guest("dd if=/dev/zero of=/dev/vdb bs=4k count=1 oflag=direct 2>/dev/null")
    yield machine
    other.unlink()


def in_guest(vm, command):
    """What a person would see: the messages of the shell, without what busybox calls itself."""
    output = vm.guest.run(command, check=False).text
    return [re.sub(r"^(?:/run/job|sh): (?:line \d+: )?", "sh: ", line) for line in output.splitlines()]


def name_of(entry):
    """The ID of a device in an answer."""
    return entry["qdev"].split("/")[-2 if "backend" in entry["qdev"] else -1]


def of_monitor(vm, command):
    """An answer of the monitor, as far as the page shows it."""
    words = json.loads(command)
    try:
        answer = vm.qmp(words["execute"], **words.get("arguments", {}))
    except ExecuteError as error:
        return [f"error: {error}"]
    parts = {}
    if words["execute"] == "query-block":
        parts = {name_of(entry): {"writeback": entry["inserted"]["cache"]["writeback"]}
                 for entry in answer if "inserted" in entry}
    elif words["execute"] == "query-blockstats":
        parts = {name_of(entry): {"flush_operations": entry["stats"]["flush_operations"], **switches(entry)}
                 for entry in answer}
    return [f"device {name}: {json.dumps(part)[1:-1]}" for name, part in sorted(parts.items())]


def switches(entry):
    """The counts of switches of a disk, if one was tried."""
    counts = entry["stats"].get("write-cache", {})
    return {"write-cache": {name: counts[name] for name in ("switches", "failed-switches")}} if counts else {}


def wait_for_event(vm, seen, shown):
    """Wait for an event that is as it is shown; returns how many have been seen by then."""
    wanted = json.loads(shown)
    end = time.monotonic() + 10 * vm.env.patience
    while True:
        events = vm.monitor.events(wanted["event"])
        for number, event in enumerate(events[seen:], seen):
            said = {name: value for name, value in event["data"].items() if name in wanted["data"]}
            if all(value in ("…", said.get(name)) for name, value in wanted["data"].items()) \
                    and said.keys() == wanted["data"].keys():
                return number + 1
        assert time.monotonic() < end, f"{PAGE}: {shown}: there are {events[seen:]}"
        time.sleep(0.05)


def matches(shown, line):
    """Whether a line is what is shown, with a number for each …"""
    return re.fullmatch(r"\d+".join(map(re.escape, shown.split("…"))), line)


def test_page(env, vm):
    found = steps((env.src / PAGE).read_text())
    assert len(found) > 12
    assert {prompt for prompt, _, _ in found} == {"guest#", "qmp>", "qmp<"}
    previous = None
    events = 0
    for prompt, command, shown in found:
        if prompt == "qmp<":
            events = wait_for_event(vm, events, command)
            continue
        if prompt == "qmp>":
            # Of all disks the page shows those that something has happened to.
            disks = {line.split(":")[0] for line in [*shown, "error:"]}
            said = [line for line in of_monitor(vm, command) if line.split(":")[0] in disks]
        else:
            # A guest takes a moment to follow the host.
            if previous == "qmp>" and command.startswith("cat ") and shown:
                vm.guest.until(f"[ \"$({command})\" = '{shown[0]}' ]")
            said = in_guest(vm, command)
        assert len(said) == len(shown) and all(map(matches, shown, said)), f"{PAGE}: {prompt} {command}: {said}"
        previous = prompt


def test_paths_are_there(env):
    """Whatever the page names of this repository."""
    for name in re.findall(r"``((?:Documentation|tests)/[\w./-]+)``", (env.src / PAGE).read_text()):
        assert (env.src / name).exists(), name
