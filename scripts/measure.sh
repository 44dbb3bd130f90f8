#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/measure.sh [WHAT…]
#
# Measures the driver beside the kernel's own, in the stock kernel, and prints a table for each WHAT:
# speed (with a QEMU as it is distributed, too), instructions, source, size, memory, cycles. All of
# them without any, which takes half an hour. Takes turns between the sides, and prints medians. At the end
# it names a file of JSON with all runs, and pictures. Best on a machine that does nothing else.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"

[ -n "${VBW_INITRAMFS-}" ] || exec "$VBW_SRC/scripts/run.sh" "$VBW_SRC/scripts/measure.sh" "$@"
VBW_PLUGIN=$("$VBW_SRC/scripts/plugin.sh")
export VBW_PLUGIN
exec python3 "$VBW_SRC/scripts/measure.py" "$@"
