#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/check-qemu.sh [--compare] [--sanitize]
#
# Builds the patched QEMU's own tests and runs those of what the series changes. With --compare, those
# that QEMU has already are run without the series, too, and what passes there has to pass with it.
# With --sanitize all is built with AddressSanitizer and UndefinedBehaviorSanitizer, and what they
# report is a failure of the test that ran.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
fetch_qemu
run_inside "$@"

compare='' sanitize=()
for option in "$@"; do
	case $option in
	--compare) compare=true ;;
	--sanitize) sanitize=(--sanitize) ;;
	*) die "unknown option $option; see scripts/check-qemu.sh --help" ;;
	esac
done

out=${VBW_OUT:-$VBW_LOG}
log=$out/qemu-tests${sanitize:+-sanitized}.tap

# run_tests LOG [--unpatched | --sanitize]
run_tests() {
	local log=$1
	shift
	"$VBW_SRC/scripts/qemu.sh" --tests "$@" "$VBW_SRC/scripts/qemu-tests.sh" "$@" >"$log"
}

# The names of the tests that a log says have passed, and were not skipped.
passed_in() { sed -nE '/# skip/Id; s/^ok( [0-9]+)? //p' "$1" | sed 's/ *$//' | sort -u; }

say "QEMU's own tests (log: $log)"
run_tests "$log" "${sanitize[@]}"

# A failing test may say so twice, by its own line and by the status of its program.
failed=$(grep -c '^not ok' "$log" || true)
skipped=$(grep -ciE '^ok .*# skip' "$log" || true)
passed=$(($(grep -c '^ok' "$log" || true) - skipped))
grep '^not ok' "$log" || true

if [ -n "$compare" ]; then
	before=$out/qemu-tests-unpatched.tap
	say "the same without the series (log: $before)"
	run_tests "$before" --unpatched
	mapfile -t lost < <(comm -23 <(passed_in "$before") <(passed_in "$log"))
	for name in "${lost[@]}"; do
		echo "not ok $name: passes without the series"
	done
	number=$(passed_in "$before" | wc -l)
	echo "without the series $number tests pass, with it $((number - ${#lost[@]})) of these"
	if [ ${#lost[@]} -eq 0 ] && [ "$number" -gt 0 ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
fi

[ -z "${VBW_COUNT-}" ] || echo "$passed $failed $skipped" >"$VBW_COUNT"
echo "QEMU's own tests: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
