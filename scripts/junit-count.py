#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Usage: scripts/junit-count.py FILE

Prints how many tests of a JUnit report passed, failed and were skipped: three numbers. A report
without a single test counts as one failure, because something must have kept them from running.
"""

import sys
import xml.etree.ElementTree


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    total = failed = skipped = 0
    for suite in xml.etree.ElementTree.parse(sys.argv[1]).iter("testsuite"):
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
    if total == 0:
        failed = 1
        total = 1
    print(total - failed - skipped, failed, skipped)


main()
