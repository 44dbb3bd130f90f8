#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/fuzz-driver.sh [--inputs N] [--seconds N] [--seed N] [--corpus FILE] [INPUT…]
#
# Fuzzes the driver: a device answers as strings of bytes say, which are mutated, and those that make
# the driver execute code that it did not before are kept. A complaint of the guest's kernel, or a guest
# that does not get over an input, is a finding: what was run last is printed, and can be given again.
# The last line is "fuzz: N inputs, N findings"; the exit status is 0 if there are none.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
run_inside "$@"

VBW_COVER_PLUGIN=$(dirname "$("$VBW_SRC/scripts/plugin.sh")")/libcover.so
export VBW_COVER_PLUGIN
exec "$VBW_SRC/scripts/run.sh" env PYTHONPATH="$VBW_SRC/tests:$VBW_SRC/tests/host" \
	PYTHONDONTWRITEBYTECODE=1 python3 -m fuzz "$@"
