#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: called by mmdebstrap while it makes the Debian of a root disk; see scripts/rootdisk.sh
#
# Adds the stock kernel, from backports, and packages that are to be installed later.

set -euo pipefail

root=$1
export DEBIAN_FRONTEND=noninteractive
"$(dirname "$0")/add-sources.sh" "$root" "$SUITE"

# fetch PACKAGE…: the apt outside, where the network is set up, only downloads.
fetch() {
	APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get clean
	APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get install -y --no-install-recommends --download-only "$@"
}

wanted=(linux-base/"$SUITE-backports"
	{linux-image-,linux-binary-,linux-modules-,linux-base-}"$LINUX_RELEASE=$LINUX_VERSION")
fetch "${wanted[@]}"
chroot "$root" apt-get install -y --no-install-recommends --no-download "${wanted[@]}"

mapfile -t later < <(sed 's/ *#.*//; /^$/d' "$VBW_PACKAGES/rootdisk-later")
fetch "${later[@]}"
mkdir -p "$root/srv/packages"
mv "$root"/var/cache/apt/archives/*.deb "$root/srv/packages/"

# What rootdisk.sh takes out again: packages to build the module with, and another maker of initramfs.
mapfile -t dkms < <(sed 's/#.*//' "$VBW_PACKAGES/rootdisk-dkms" | tr -s '[:space:]' '\n' | sed '/^$/d')
mkdir -p "$root/srv/dkms" "$root/srv/dracut"
fetch "${dkms[@]}" {linux-headers-"$LINUX_RELEASE",linux-source-"$(cut -d. -f1,2 <<<"$LINUX_RELEASE")"}"=$LINUX_VERSION"
mv "$root"/var/cache/apt/archives/*.deb "$root/srv/dkms/"
fetch dracut
mv "$root"/var/cache/apt/archives/*.deb "$root/srv/dracut/"
APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get clean
(cd "$root/srv/dkms" && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get download "linux-image-$LINUX_RELEASE=$LINUX_VERSION")

# It was for the making; in the guest dpkg writes as it always does.
rm -f "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
