#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: [INSTALL_MOD_PATH=FOLDER] scripts/modules-install.sh [KDIR]
#
# Builds the driver and copies it to lib/modules/<release>/updates below INSTALL_MOD_PATH, or below /,
# where modprobe finds it.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"

kdir=${1:-$("$VBW_SRC/scripts/kdir.sh")}
module=$("$VBW_SRC/scripts/module.sh" "$kdir")
release=$(cat "$kdir/include/config/kernel.release")
base=${INSTALL_MOD_PATH-}
modules=$base/lib/modules/$release

[ -n "$base" ] || [ -d "$modules" ] ||
	die "kernel $release is not installed here; make kdir KERNEL=$(uname -r) makes a KDIR for the running one," \
		"and INSTALL_MOD_PATH=… installs somewhere else"
install -D -m 644 "$module" "$modules/updates/virtio_blk_wce.ko"
say "installed $modules/updates/virtio_blk_wce.ko"
# Without its index modprobe would not find the module. A folder that holds nothing else has none.
if [ -e "$modules/modules.order" ]; then
	depmod -b "${base:-/}" "$release"
fi
