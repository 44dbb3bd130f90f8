#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/debian.sh OPTION… SUITE TARGET
#
# mmdebstrap, for what lies in the cache: as root in namespaces of its own, else in a user namespace.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"

# As root mmdebstrap mounts /proc and /sys below the new root: in a namespace of its own, so that
# they, and whatever runs there, go with it when it is interrupted.
contain=() mode=unshare
if [ "$(id -u)" -eq 0 ]; then
	mode=root
	contain=(unshare --mount --pid --fork --kill-child --mount-proc)
fi

# What nobody reads there takes time to unpack: documentation (but not the copyright files) and
# translations. Nor does what is made again from nothing when it is not whole need to reach the disk
# file by file.
exec env -u APT_CONFIG "${contain[@]}" mmdebstrap --mode=$mode --variant=apt --components=main \
	--aptopt='APT::Sandbox::User "root"' \
	--aptopt='Acquire::Languages "none"' \
	--dpkgopt='path-exclude=/usr/share/doc/*' \
	--dpkgopt='path-include=/usr/share/doc/*/copyright' \
	--dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/info/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' \
	--dpkgopt=force-unsafe-io \
	"$@"
