#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/prove.sh [--profile quick|normal|long] [--seed N] [--seconds N] [--turns N] [--list] [TRIAL…]
#
# Judges durability: guests write to a storage that forgets and acknowledge what is durable by the
# rules of their kernel; each acknowledgement is checked when it arrives. Controls have to lose. The
# last line is "prove: A acknowledged, L lost, C lost by controls", and so is the exit status: 0 if
# nothing was lost but by controls, and by each of them. VBW_PROVE_MODULE and VBW_PROVE_QEMU name another
# module and another QEMU's folder (both below the cache).

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
run_inside "$@"

exec "$VBW_SRC/scripts/run.sh" env PYTHONPATH="$VBW_SRC/tests:$VBW_SRC/tests/host" \
	PYTHONDONTWRITEBYTECODE=1 python3 -m prove "$@"
