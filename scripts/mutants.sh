#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/mutants.sh [--kcsan] [NAME…]
#
# Breaks driver, layer and device on purpose, in one place after the other, and runs the tests that are to notice.
# What is broken, and by which tests it is found, is in tests/mutants/*.toml; with names, which may be patterns, only
# those are tried. With --kcsan it is those that only KCSAN notices, on the debug kernel that has it.
# The last line counts: a mutant that no test notices has failed. Some are not wrong but unlucky, in ways
# that a test can't bring about: of these it is expected that the tests pass.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"

kernel=()
if [ "${1-}" = --kcsan ]; then
	kernel=(--kcsan)
	shift
fi
[ -n "${VBW_INITRAMFS-}" ] || exec "$VBW_SRC/scripts/run.sh" "${kernel[@]}" "$VBW_SRC/scripts/mutants.sh" "$@"
# There is one tree of what is broken.
lock exclusive mutants "the mutants' tree"
exec python3 "$VBW_SRC/scripts/mutants.py" "$@"
