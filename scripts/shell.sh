#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/shell.sh
#
# A guest's prompt on this terminal: a stock Debian kernel in the patched QEMU, the driver loaded,
# /dev/vda a scratch disk of 1 GiB. Leave with exit or Ctrl-D; Ctrl-A X ends QEMU at once.
# Commands that come by a pipe are run there instead, and their exit status is the script's:
#     echo 'cat /sys/block/vda/cache_type' | scripts/shell.sh

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"

# Inside run.sh all that is needed is there already.
[ -n "${VBW_INITRAMFS-}" ] || exec "$VBW_SRC/scripts/run.sh" --no-testdev "$VBW_SRC/scripts/shell.sh" "$@"
exec python3 "$VBW_SRC/scripts/shell.py" "$@"
