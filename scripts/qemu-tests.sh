#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: called by scripts/check-qemu.sh in a build folder of QEMU, with the names of the files that the
# patches touch there on standard input, and with the option that the build was made with; --quick
# leaves out the iotests and clang, --only PATTERN all but the unit tests and qtests in whose names the pattern is
#
# Runs QEMU's own tests of what the patches change: all qtests of virtio-blk and virtio-scsi, unit tests
# of the block layer, and those iotests that the patches add or change, next to those in scripts/qemu-iotests.list.
# Has clang look at the locks that what the patches change has to hold. Prints TAP.

set -euo pipefail

build=$PWD
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
list=$here/qemu-iotests.list
mapfile -t touched < <(sort -u)
mapfile -t ours < <(printf '%s\n' "${touched[@]}" | sed -n 's|^tests/qemu-iotests/tests/\([^.]*\)$|\1|p')

export QTEST_QEMU_BINARY=$build/qemu-system-x86_64
export QTEST_QEMU_IMG=$build/qemu-img
export QTEST_QEMU_STORAGE_DAEMON_BINARY=$build/storage-daemon/qemu-storage-daemon

# Programs in the build folder look for firmware below qemu-bundle, where Debian's source has none.
mkdir -p qemu-bundle/usr/share
ln -sfn /usr/share/qemu /usr/share/seabios qemu-bundle/usr/share/

# The sanitizers write into files: what programs print is not seen by everybody who starts them.
patience=1 sanitize=''
reports=$(mktemp -d)
if [ "${1-}" = --sanitize ]; then
	patience=4 sanitize=true
	export UBSAN_OPTIONS=print_stacktrace=1:log_path=$reports/report
fi

# leaks NAME: whether that test may leave memory behind, which QEMU does without our patches, too: savevm and
# loadvm in its monitor do, and in the iotests children that only fork, and qemu-io when it opens qcow2 in vain.
leaks() { [[ $1 == *snapshot || $1 == iotests* ]]; }

# run NAME CMD…: a program that ends badly, or that runs nothing at all, is a failed test. Its output
# goes by way of a file: a pipe would wait for whatever a failed test leaves running.
output=$(mktemp)
trap 'rm -rf "$output" "$reports"' EXIT
run() {
	local name=$1 status=0 report leaks=1
	shift
	if [ -n "$sanitize" ]; then
		! leaks "$name" || leaks=0
		export ASAN_OPTIONS=detect_leaks=$leaks:abort_on_error=1:log_path=$reports/report
	fi
	timeout $((300 * patience)) "$@" >"$output" 2>&1 </dev/null || status=$?
	cat "$output"
	if [ "$status" -ne 0 ] || ! grep -q '^ok' "$output"; then
		echo "not ok $name (status $status)"
	fi
	for report in "$reports"/*; do
		# A warning is not about what went wrong, but about what coroutines might hide from them.
		if grep -qs 'ERROR: \|runtime error: ' "$report"; then
			echo "not ok $name: reported by a sanitizer"
			sed 's/^/# /' "$report"
		fi
		rm -f "$report"
	done
}

# What an earlier run has counted is not of these tests.
[ "${1-}" != --coverage ] || find . -name '*.gcda' -delete

only=''
[ "${1-}" != --only ] || only=$2

# Each qtest on its own: one that crashes ends the program that runs it.
mapfile -t names < <(tests/qtest/qos-test -l |
	sed -n '/\(virtio-blk\|virtio-scsi\|vhost-user-blk\)[a-z-]*-tests/s/^# \//\//p' | { grep -e "$only" || true; })
for name in "${names[@]}"; do
	run "$name" tests/qtest/qos-test --tap -k -p "$name"
done

for program in tests/unit/test-*; do
	if [ -f "$program" ] && [[ $program =~ $only ]]; then
		names+=("$program")
		run "$program" "$program" --tap -k
	fi
done
[ ${#names[@]} -gt 0 ] || echo "no test has '$only' in its name" >&2

case ${1-} in --quick | --only) exit 0 ;; esac

run locks python3 "$here/qemu_locks.py" "${touched[@]}"

cd tests/qemu-iotests
for format in raw qcow2; do
	mapfile -t names < <(awk -v format="$format" \
		'/^[^#]/ && index("," $2 ",", "," format ",") { print $1 }' "$list")
	run "iotests, $format" ./check -tap -j "$(nproc)" "-$format" "${names[@]}" "${ours[@]}"
done
