#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/demo-svg.sh
#
# Runs the demo on a terminal, records it, and makes of the recording what the documents show of it:
# Documentation/demo.svg, a moving picture; Documentation/demo.rst, all that was printed; and the part
# of that which is in README.md. A demo that fails changes none of them.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"

# Inside run.sh all that is needed is there already.
[ -n "${VBW_INITRAMFS-}" ] || exec "$VBW_SRC/scripts/run.sh" --no-testdev "$VBW_SRC/scripts/demo-svg.sh" "$@"
exec python3 "$VBW_SRC/scripts/demo_svg.py" "$@"
