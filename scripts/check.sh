#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/check.sh
#
# Builds everything, lints, and runs all tests. The last line counts them, with each part that is
# built, each step of lint and each test as one.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
cd "$VBW_SRC"

passed=0 failed=0 skipped=0
mkdir -p "$VBW_CACHE/out"
VBW_OUT=$(mktemp -d "$VBW_CACHE/out/$(date +%Y%m%d-%H%M%S)-XXX")
export VBW_OUT

# count FILE: adds up what a step left in a file as "PASSED FAILED SKIPPED".
count() {
	local p=0 f=1 s=0
	[ ! -s "$1" ] || read -r p f s <"$1"
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

finish() {
	say "logs and results: $VBW_OUT"
	echo "$passed passed, $failed failed, $skipped skipped"
	[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
	exit
}

for part in buildroot kdir module qemu testdev rootdisk; do
	if "scripts/$part.sh" >/dev/null; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
done
# What is broken here keeps everything below from saying anything useful.
[ "$failed" -eq 0 ] || finish

VBW_COUNT=$VBW_OUT/lint.count scripts/lint.sh || say "lint failed"
count "$VBW_OUT/lint.count"

VBW_COUNT=$VBW_OUT/qemu.count scripts/check-qemu.sh || say "QEMU's own tests failed"
count "$VBW_OUT/qemu.count"

scripts/run.sh --root-disk python3 -m pytest -c tests/pytest.ini -m 'not long' tests --junitxml="$VBW_OUT/junit.xml" || say "tests failed"
scripts/run.sh python3 scripts/junit-count.py "$VBW_OUT/junit.xml" >"$VBW_OUT/tests.count" || true
count "$VBW_OUT/tests.count"

finish
