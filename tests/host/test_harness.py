# SPDX-License-Identifier: GPL-2.0
"""The harness itself: that it can fail, and says why."""

import os
import re
import subprocess
import sys

import pytest

from vbw import cpio, kernel_log, ktap
from vbw.machine import Config


def run_selftest(env, folder, name):
    """Run tests that are made to fail; {test: outcome}, and pytest's output."""
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", str(env.src / "tests/pytest.ini"), "-n", "0",
         "-rA", str(env.src / "tests/host/selftest" / name)],
        env={**{name: value for name, value in os.environ.items() if not name.startswith("PYTEST")},
             "VBW_OUT": str(folder)},
        capture_output=True, text=True, check=False)
    (folder / "output").write_text(result.stdout + result.stderr)
    outcomes = {}
    for outcome, test in re.findall(r"^(PASSED|FAILED|ERROR) \S*::(\S+)", result.stdout, re.M):
        outcomes.setdefault(test.split("@")[0], outcome)
    return outcomes, result.stdout


def test_complaints_of_the_kernel_fail_the_script_s_test(env, folder):
    outcomes, output = run_selftest(env, folder, "complains.sh")
    assert outcomes == {
        "before": "PASSED", "warning": "FAILED", "between": "PASSED", "fails": "FAILED",
        "leaves_a_child_behind": "PASSED",
    }
    assert "lib/selftest.c:1" in output, "the line is shown"
    assert "it says why" in output
    assert "1 skipped" in output
    assert "logs: " in output


def test_failures_of_the_guest_fail_the_host_s_test(env, folder):
    outcomes, output = run_selftest(env, folder, "complains.py")
    assert outcomes == {
        "test_complaints": "FAILED", "test_panic": "FAILED", "test_guest_hangs": "FAILED",
        "test_command_fails": "FAILED", "test_qemu_does_not_start": "FAILED",
    }
    for reason in ("the guest's kernel complained", "use-after-free", "blocked for more than",
                   "Kernel panic", "no answer from the guest in", "ended with status 7",
                   "does not accept value 'no-such-driver'"):
        assert reason in output
    assert "the list of bad words is not whole" not in output


class TestKtap:
    """The parser."""

    def test_results(self):
        report = ktap.parse(
            "KTAP version 1\n1..3\nok 1 one\n# why not\nnot ok 2 two\nok 3 three # SKIP no fio\n")
        assert not report.problems
        assert [result.outcome for result in report.results.values()] == ["pass", "fail", "skip"]
        assert report.results["two"].notes == ["# why not"]
        assert report.results["three"].reason == "no fio"

    @pytest.mark.parametrize("text, problem", [
        ("", "no plan"),
        ("1..2\nok 1 one\n", "2 tests planned, 1 reported"),
        ("1..1\nok 2 two\n", "out of order"),
        ("1..2\nok 1 one\nok 2 one\n", "two tests named one"),
        ("1..1\n1..1\nok 1 one\n", "second plan"),
        ("1..1\nok 1 one\nsh: out of memory\n", "after the last test: sh: out of memory"),
    ])
    def test_what_contradicts_itself_is_a_problem(self, text, problem):
        assert any(problem in found for found in ktap.parse(text).problems)


@pytest.mark.parametrize("frames, complaints", [
    (["blk_add_timer+0x1/0x2", "worker_thread+0x3/0x4"], 0),
    (["blk_add_timer+0x1/0x2", "_R_queue_rq+0x5/0x6 [virtio_blk_wce]"], 1),
])
def test_data_race_is_a_complaint_if_the_driver_is_in_it(frames, complaints):
    text = ["BUG: KCSAN: data-race in blk_add_timer / worker_thread", *frames,
            "Reported by Kernel Concurrency Sanitizer on:", "elsewhere+0x7/0x8 [virtio_blk_wce]"]
    lines = [kernel_log.Line(number, 0, line) for number, line in enumerate(text)]
    assert kernel_log.bad_lines(lines) == lines[:complaints]


def test_archive_is_one_that_cpio_reads(folder):
    archive = cpio.Archive()
    archive.add("a/b/one", b"1\n", 0o755)
    archive.add("a/two", b"22\n")
    listing = subprocess.run(["cpio", "-itv", "--quiet"], input=archive.finish(),
                             capture_output=True, check=True).stdout.decode()
    assert [line.split()[-1] for line in listing.splitlines()] == ["a", "a/b", "a/b/one", "a/two"]
    assert re.search(r"^-rwxr-xr-x .* 2 .* a/b/one$", listing, re.M)


def test_scripts_help_and_list(env):
    """Each guest script can be asked what it does, by hand and on any system."""
    for script in sorted((env.src / "tests/guest").glob("*.sh")):
        if script.name == "lib.sh":
            continue
        listing = subprocess.run(["sh", script, "--list"], capture_output=True, text=True, check=True)
        assert len(listing.stdout.split()) >= 3
        text = subprocess.run(["sh", script, "--help"], capture_output=True, text=True, check=True)
        assert text.stdout.splitlines()[0].strip(), f"{script.name} says nothing about itself"
        assert "Usage: sh" in text.stdout
        wrong = subprocess.run(["sh", script, "/dev/null"], capture_output=True, text=True, check=False)
        # With 2 kselftest would take it for a failure that was expected.
        assert wrong.returncode == 1
        nothing = subprocess.run(["sh", script], capture_output=True, text=True, check=False)
        assert nothing.returncode == 4 and "# SKIP" in nothing.stdout


def test_script_by_hand(boot, disk):
    """As a person would: one test of a script, in a guest."""
    vm = boot(Config(disks=[disk()]))
    output = vm.guest("cd /vbw && sh switch.sh /dev/vda to_write_through to_write_back")
    assert output.splitlines() == [
        "KTAP version 1", "1..2", "ok 1 to_write_through", "ok 2 to_write_back"]


def test_commands_arrive_whole(boot):
    """Also while processes end whose parents are gone: who adopts them is interrupted in what it reads."""
    vm = boot(Config(serial=True), driver=None)
    vm.guest("cd /run; setsid sh -c 'while :; do ((usleep 1000; echo >> ended) &); usleep 2000; done' > /dev/null 2>&1 &")
    ended = "ended=$(wc -l < /run/ended)"
    vm.guest.until("[ -s /run/ended ]")
    before = int(vm.guest(f"{ended}; echo $ended"))
    text = 4000 * "x"
    for number in range(50):
        assert vm.guest(f"echo {number} {text}") == f"{number} {text}"
    assert int(vm.guest(f"{ended}; echo $ended")) >= before + 100
