#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/check-qemu.sh [--compare] [--sanitize | --coverage] | --each [FROM [TO]]
#
# Builds the patched QEMU's own tests and runs those of what the patches change. With --compare, those
# that QEMU has already are run without the patches, too, and what passes there has to pass with them.
# With --sanitize all is built with AddressSanitizer and UndefinedBehaviorSanitizer, and what they
# report is a failure of the test that ran. With --coverage, prints which lines that the patches add
# the tests have executed.
#
# With --each QEMU is built with the first patch, with the first two, and so on, and each time all but the
# iotests are run: whoever bisects finds a QEMU that works. FROM and TO are places in the list that
# scripts/qemu.sh --patches prints, which goes through all series; the default is all of it.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
fetch_qemu
run_inside "$@"

# The result of a run in the log $1, as $passed, $failed and $skipped. A failing test may say so twice, by
# its own line and by the status of its program.
count() {
	failed=$(grep -c '^not ok' "$1" || true)
	skipped=$(grep -ciE '^ok .*# skip' "$1" || true)
	passed=$(($(grep -c '^ok' "$1" || true) - skipped))
	grep '^not ok' "$1" || true
}

each() {
	local names=() number from to log bad=0
	mapfile -t names < <("$VBW_SRC/scripts/qemu.sh" --patches)
	from=${1:-1} to=${2:-${#names[@]}}
	if [ "$from" -lt 1 ] || [ "$from" -gt "$to" ] || [ "$to" -gt ${#names[@]} ]; then
		die "there are ${#names[@]} patches: no such part of them as $from to $to"
	fi
	for ((number = from; number <= to; number++)); do
		log=${VBW_OUT:-$VBW_LOG}/qemu-tests-first-$number.tap
		if ! "$VBW_SRC/scripts/qemu.sh" --tests --first "$number" \
			"$VBW_SRC/scripts/qemu-tests.sh" --quick >"$log"; then
			echo "not ok $number ${names[number - 1]}: does not build"
			bad=$((bad + 1))
			continue
		fi
		count "$log"
		if [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]; then
			echo "ok $number ${names[number - 1]}: $passed passed, $skipped skipped"
		else
			echo "not ok $number ${names[number - 1]}: $passed passed, $failed failed (log: $log)"
			bad=$((bad + 1))
		fi
	done
	[ "$bad" -eq 0 ]
}

if [ "${1-}" = --each ]; then
	each "${@:2}"
	exit
fi

compare='' variant=() coverage=''
for option in "$@"; do
	case $option in
	--compare) compare=true ;;
	--sanitize) variant=(--sanitize) ;;
	--coverage) variant=(--coverage) coverage=true ;;
	*) die "unknown option $option; see scripts/check-qemu.sh --help" ;;
	esac
done

out=${VBW_OUT:-$VBW_LOG}
log=$out/qemu-tests${variant:+-${variant#--}}.tap

# run_tests LOG [--unpatched | --sanitize | --coverage]
run_tests() {
	local log=$1
	shift
	"$VBW_SRC/scripts/qemu.sh" --tests "$@" "$VBW_SRC/scripts/qemu-tests.sh" "$@" >"$log"
}

# The names of the tests that a log says have passed, and were not skipped.
passed_in() { sed -nE '/# skip/Id; s/^ok( [0-9]+)? //p' "$1" | sed 's/ *$//' | sort -u; }

say "QEMU's own tests (log: $log)"
run_tests "$log" "${variant[@]}"

count "$log"
if [ -n "$coverage" ]; then
	"$VBW_SRC/scripts/qemu.sh" --tests --coverage python3 "$VBW_SRC/scripts/qemu_coverage.py" \
		"$("$VBW_SRC/scripts/qemu.sh" --source)"
fi

if [ -n "$compare" ]; then
	before=$out/qemu-tests-unpatched.tap
	say "the same without the patches (log: $before)"
	run_tests "$before" --unpatched
	mapfile -t lost < <(comm -23 <(passed_in "$before") <(passed_in "$log"))
	for name in "${lost[@]}"; do
		echo "not ok $name: passes without the patches"
	done
	number=$(passed_in "$before" | wc -l)
	echo "without the patches $number tests pass, with them $((number - ${#lost[@]})) of these"
	if [ ${#lost[@]} -eq 0 ] && [ "$number" -gt 0 ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
fi

[ -z "${VBW_COUNT-}" ] || echo "$passed $failed $skipped" >"$VBW_COUNT"
echo "QEMU's own tests: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
