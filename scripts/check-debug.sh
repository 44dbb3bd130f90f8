#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/check-debug.sh [PYTEST-ARGUMENT…]
#
# Runs the tests that boot guests on the debug kernel (scripts/debug-kernel.sh), all of them or what
# the arguments choose. A report of one of its checks, KASAN, lockdep and the others, fails the test
# that ran meanwhile. The last line counts the tests.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
cd "$VBW_SRC"

mkdir -p "$VBW_CACHE/out"
VBW_OUT=$(mktemp -d "$VBW_CACHE/out/$(date +%Y%m%d-%H%M%S)-XXX")
export VBW_OUT

passed=0 failed=1 skipped=0
[ $# -gt 0 ] || set -- tests
scripts/run.sh --debug python3 -m pytest -c tests/pytest.ini --junitxml="$VBW_OUT/junit.xml" "$@" ||
	say "tests failed"
scripts/run.sh --debug python3 scripts/junit-count.py "$VBW_OUT/junit.xml" >"$VBW_OUT/tests.count" || true
[ ! -s "$VBW_OUT/tests.count" ] || read -r passed failed skipped <"$VBW_OUT/tests.count"

say "logs and results: $VBW_OUT"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
