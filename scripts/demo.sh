#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/demo.sh
#
# Shows the main job, with everything that is shown also checked: beside a guest of stock parts, which loses
# data at a switch and after it has moved to another QEMU, a stock Debian kernel in the patched QEMU loads the
# driver, keeps that data, and switches its disk's write cache under I/O, with the image deleted, and with a
# disk that cannot flush. Makes what is missing first. The last line is the verdict; the exit status is 0 only
# if every check has passed.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"

# Inside run.sh all that is needed is there already.
[ -n "${VBW_INITRAMFS-}" ] || exec "$VBW_SRC/scripts/run.sh" --no-testdev "$VBW_SRC/scripts/demo.sh" "$@"
exec python3 "$VBW_SRC/scripts/demo.py" "$@"
