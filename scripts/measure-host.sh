#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/measure-host.sh [WHAT…]
#
# Measures the device, and prints a table for each WHAT: switches (10,000 of them under load: what they
# leave behind), latency (how long a switch takes, and what other requests see of it), synchronous
# (writes in write through, beside stock QEMU), errors (failed writes that are reported as done; VBW_FAILED
# says how many have to fail). All of them without any, which takes most of an hour. Best on a machine that
# does nothing else.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"

[ -n "${VBW_INITRAMFS-}" ] || exec "$VBW_SRC/scripts/run.sh" "$VBW_SRC/scripts/measure-host.sh" "$@"
exec python3 "$VBW_SRC/scripts/measure_host.py" "$@"
