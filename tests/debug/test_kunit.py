# SPDX-License-Identifier: GPL-2.0
"""The driver's own unit tests, which KUnit runs in the guest when the module is loaded."""

import re

from vbw.machine import Config

RESULTS = "/sys/kernel/debug/kunit"


def sources_with_tests(env):
    """{suite: its tests}, as the driver's sources have them."""
    suites = {}
    for path in sorted((env.src / "drivers/block/virtio_blk_wce").glob("*.rs")):
        text = path.read_text()
        suite = re.search(r"kunit_tests\((\w+)\)", text)
        if suite:
            suites[suite.group(1)] = re.findall(r"#\[test\]\s+fn (\w+)\(", text)
    return suites


def test_all_suites_pass(env, boot, disk):
    """Each suite that the sources have has run, with each of its tests, and all are ok."""
    suites = sources_with_tests(env)
    assert len(suites) >= 5
    vm = boot(Config(disks=[disk()]))
    for suite, tests in suites.items():
        results = vm.guest(f"cat {RESULTS}/{suite}/results")
        passed = re.findall(r"^ +ok \d+ (\w+)$", results, re.M)
        assert tests and passed == tests, results
        assert re.search(rf"^ok \d+ {suite}$", results, re.M), results
        assert "not ok" not in results, results
