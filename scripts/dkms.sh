#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: called by dkms in its copy of the source, as scripts/dkms.sh [--try] RELEASE; see dkms.conf
#
# Builds virtio_blk_wce.ko for a Debian kernel in the current folder, with this system's own tools,
# headers and linux-source. The KDIR, which takes minutes to make, is kept in
# /var/cache/virtio-blk-wce, and so is the module. With --try it only gets there, and when it cannot be
# built, this says what to do then.

set -euo pipefail
export BUILDROOT=none VBW_CACHE=${VBW_CACHE:-/var/cache/virtio-blk-wce}
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
try=
if [ "${1-}" = --try ]; then
	try=yes
	shift
fi
release=${1?which kernel? see scripts/dkms.sh --help}

kdir=$("$VBW_SRC/scripts/kdir.sh" "$release") && module=$("$VBW_SRC/scripts/module.sh" "$kdir") && status=0 || status=$?
if [ -n "$try" ]; then
	[ "$status" -eq 0 ] || say "virtio_blk_wce is left out for kernel $release, whose disks stay with virtio_blk;" \
		"when that is mended: dkms autoinstall -k $release"
	exit "$status"
fi
[ "$status" -eq 0 ] || exit "$status"
cp "$module" virtio_blk_wce.ko
