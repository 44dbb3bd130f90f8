#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/check-qemu.sh
#
# Builds the patched QEMU's own tests and runs those of what the series changes.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
run_inside "$@"

log=${VBW_OUT:-$VBW_LOG}/qemu-tests.tap
say "QEMU's own tests (log: $log)"
"$VBW_SRC/scripts/qemu.sh" --tests "$VBW_SRC/scripts/qemu-tests.sh" >"$log"

# A failing test may say so twice, by its own line and by the status of its program.
failed=$(grep -c '^not ok' "$log" || true)
skipped=$(grep -ciE '^ok .*# skip' "$log" || true)
passed=$(($(grep -c '^ok' "$log" || true) - skipped))
grep '^not ok' "$log" || true

[ -z "${VBW_COUNT-}" ] || echo "$passed $failed $skipped" >"$VBW_COUNT"
echo "QEMU's own tests: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
