#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/rootdisk.sh
#
# Makes sure that there is a Debian for a guest's root disk, with systemd, apt and the stock kernel,
# and prints the path of its archive. Beside it are packages: dkms/ with what the module is built with,
# dracut/ with another maker of initramfs. Nothing of this project is in it: a test installs the driver
# there as a user would, and makes a disk of it. Uses the network.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"

# Inside the build root, which has no network, what was made outside is used.
root=$("$VBW_SRC/scripts/buildroot.sh")
# shellcheck source=scripts/packages/pins
. "$PACKAGES/pins"
# shellcheck source=/dev/null
[ ! -s "$root/etc/vbw-root" ] || . "$root/etc/vbw-root"
# Another flavour of the same version, as scripts/run.sh has been told.
LINUX_RELEASE=${VBW_KERNEL_RELEASE:-$LINUX_RELEASE}

# apt's own timers have nothing to do in a guest without a network; its dpkg is to write as anyone's
# does, so the option for making this does not stay.
make_rootdisk() {
	export LINUX_RELEASE LINUX_VERSION SUITE
	# shellcheck disable=SC2016 # mmdebstrap's hook has the root as $1
	step "root disk: installing $SUITE with Linux $LINUX_VERSION" "$PART_LOG.log" \
		env VBW_PACKAGES="$PACKAGES" "$VBW_SRC/scripts/debian.sh" \
		--include="$(listed "$PACKAGES/rootdisk" | paste -sd,)" \
		--customize-hook="$VBW_SRC/scripts/rootdisk-hook.sh \"\$1\"" \
		--customize-hook="copy-out /srv/dkms /srv/dracut $1" \
		--customize-hook='rm -r "$1/srv/dkms" "$1/srv/dracut"' \
		"$SUITE" "$1/root.tar"
}

part rootdisk "$(key "$LINUX_RELEASE" "$LINUX_VERSION" "$SUITE" "$(declare -f make_rootdisk)" \
	"$(listed "$PACKAGES"/rootdisk*)" \
	"$(digest "$VBW_SRC"/scripts/{debian,add-sources,rootdisk-hook}.sh)")" make_rootdisk
prune rootdisk 2
echo "$PART/root.tar"
