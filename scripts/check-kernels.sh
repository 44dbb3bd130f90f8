#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/check-kernels.sh [KERNEL…]
#
# On other kernels of Debian: makes KDIR and driver, and runs the tests by which kernels differ, which is to say
# all of the guest's and those in which a disk is switched, reset or unplugged. make check-guest KERNEL=… runs all
# tests on one kernel. A KERNEL is a flavour of the pinned version or a release. If none is named: amd64, rt-amd64,
# and the release before the pinned one, of the earliest version that the driver is for.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
[ $# -gt 0 ] || set -- amd64 rt-amd64 7.2.12+deb13-cloud-amd64
cd "$VBW_SRC"
out=${VBW_OUT:-$VBW_CACHE/out/$(date +%Y%m%d-%H%M%S)-kernels}

status=0 total=(0 0 0)
for kernel in "$@"; do
	say "kernel: $kernel"
	mkdir -p "$out/$kernel"
	VBW_OUT=$out/$kernel scripts/run.sh --kernel "$kernel" python3 -m pytest -c tests/pytest.ini tests/guest \
		tests/host/test_{switch,pending,reset,unplug}.py --junitxml="$out/$kernel/junit.xml" || status=1
	count=$(scripts/run.sh python3 scripts/junit-count.py "$out/$kernel/junit.xml") || count="0 1 0"
	read -r passed failed skipped <<<"$count"
	say "$kernel: $passed passed, $failed failed, $skipped skipped"
	total=($((total[0] + passed)) $((total[1] + failed)) $((total[2] + skipped)))
done
[ -z "${VBW_COUNT-}" ] || echo "${total[*]}" >"$VBW_COUNT"
echo "other kernels: ${total[0]} passed, ${total[1]} failed, ${total[2]} skipped"
exit $status
