#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: called by dkms in its copy of the source, as scripts/dkms.sh RELEASE; see dkms.conf
#
# Builds virtio_blk_wce.ko for a Debian kernel in the current folder, with this system's own tools,
# headers and linux-source. The KDIR, which takes minutes to make, is kept in
# /var/cache/virtio-blk-wce.

set -euo pipefail
export BUILDROOT=none VBW_CACHE=${VBW_CACHE:-/var/cache/virtio-blk-wce}
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
release=${1?which kernel? see scripts/dkms.sh --help}

kdir=$("$VBW_SRC/scripts/kdir.sh" "$release")
module=$("$VBW_SRC/scripts/module.sh" "$kdir")
cp "$module" virtio_blk_wce.ko
