#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/coverage.sh [PYTEST-ARGUMENT…]
#
# Runs the tests of make check that boot guests, or what the arguments choose, has QEMU note which code of the driver
# and of its layer is executed, and prints a table of their files, and the lines that are not reached.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
[ -n "${VBW_INITRAMFS-}" ] || exec "$VBW_SRC/scripts/run.sh" --root-disk "$VBW_SRC/scripts/coverage.sh" "$@"
cd "$VBW_SRC"

VBW_COVERAGE=$(dirname "$(scripts/plugin.sh)")/libcover.so
export VBW_COVERAGE
[ $# -gt 0 ] || set -- -m "not long" tests
python3 -m pytest -c tests/pytest.ini "$@" || say "tests failed"
find "$VBW_OUT" -name covered -size +0 -print0 | xargs -0 python3 scripts/coverage.py "$VBW_MODULE"
say "logs and results: $VBW_OUT"
