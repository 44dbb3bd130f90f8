#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/run.sh CMD [ARG…]
#
# Makes whatever is missing (build root, KDIR, driver, QEMU, initramfs) and runs CMD in the build
# root. All that CMD needs to know of what was built is in the environment that is set below.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
[ $# -gt 0 ] || die "no command; see scripts/run.sh --help"
run_inside "$@"

versions

scripts=$VBW_SRC/scripts
export VBW_RELEASE=$LINUX_RELEASE
export VBW_MODULES=/usr/lib/modules/$VBW_RELEASE
export VBW_KERNEL=$VBW_MODULES/vmlinuz
[ -e "$VBW_KERNEL" ] || VBW_KERNEL=/boot/vmlinuz-$VBW_RELEASE
export VBW_QEMU_STOCK=/usr/bin
export ACCEL=${ACCEL-}

kdir=$("$scripts/kdir.sh" "$VBW_RELEASE")
VBW_MODULE=$("$scripts/module.sh" "$kdir")
VBW_QEMU=$("$scripts/qemu.sh")
VBW_INITRAMFS=$("$scripts/initramfs.sh" "$VBW_RELEASE")
mkdir -p "$VBW_CACHE/out"
VBW_OUT=${VBW_OUT:-$(mktemp -d "$VBW_CACHE/out/$(date +%Y%m%d-%H%M%S)-XXX")}
export VBW_MODULE VBW_QEMU VBW_INITRAMFS VBW_OUT

exec "$@"
