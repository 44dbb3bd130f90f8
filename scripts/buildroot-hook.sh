#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: called by mmdebstrap while it makes the build root; see scripts/buildroot.sh
#
# Adds what comes from backports and as source: the stock kernel with its configuration, its symbols
# and its source, python3-qemu-qmp, and QEMU's source. Checks what the pins promise, and writes
# /etc/vbw-root, which tells the other scripts what is really there.

set -euo pipefail

root=$1
export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG DEBIAN_FRONTEND=noninteractive
# shellcheck source=scripts/packages/pins
. "$VBW_PACKAGES/pins"

warn() { echo "warning: $*"; }
fail() { echo "error: $*"; exit 1; }

# versions PACKAGE, newest first, and whether one is there
versions() { apt-cache madison "$1" | awk -F' *[|] *' '{ print $2 }'; }
has() { versions "$1" | grep -Fx -- "$2" >/dev/null; }

# Newest kernel in backports when the pinned one has been replaced there.
choose_kernel() {
	local flavour=${LINUX_RELEASE#*+*-} found
	has "linux-headers-$LINUX_RELEASE" "$LINUX_VERSION" && has "$LINUX_SOURCE" "$LINUX_VERSION" && return
	found=$(apt-cache pkgnames linux-headers-7. | grep -E -- "\+deb13-$flavour\$" | sort -V | tail -n 1)
	[ -n "$found" ] || fail "backports has neither Linux $LINUX_VERSION nor any other 7.x"
	warn "Linux $LINUX_VERSION is no longer in backports; taking ${found#linux-headers-} instead."
	LINUX_RELEASE=${found#linux-headers-}
	LINUX_VERSION=$(versions "$found" | sed -n 1p)
	LINUX_SOURCE=linux-source-$(cut -d. -f1,2 <<<"$LINUX_RELEASE")
	LINUX_SOURCE_SHA256=
}

choose_qemu() {
	local all series found
	all=$(apt-cache showsrc qemu | sed -n 's/^Version: //p')
	grep -Fqx -- "$QEMU_VERSION" <<<"$all" && return
	series=$(sed -E 's/^([0-9]+:[0-9]+\.[0-9]+)\..*/\1/' <<<"$QEMU_VERSION")
	found=$(grep -E "^${series//./\\.}\." <<<"$all" | sort -V | tail -n 1)
	[ -n "$found" ] || fail "the archive has neither QEMU $QEMU_VERSION nor another release of that series"
	warn "QEMU $QEMU_VERSION is no longer in the archive; taking $found instead."
	warn "If all tests pass with it, write it into scripts/packages/pins; see Documentation/build.rst."
	QEMU_VERSION=$found QEMU_DSC_SHA256='' QEMU_ORIG_SHA256=''
}

# check FILE SHA256, where an empty sum means: not the pinned version, apt has checked it.
check() {
	[ -z "$2" ] || echo "$2  $1" | sha256sum --check --status ||
		fail "$1 is not the file that scripts/packages/pins names by its SHA-256"
}

"$(dirname "$0")/add-sources.sh" "$root" "$SUITE"
choose_kernel
choose_qemu

# The apt outside, where the network is set up, only downloads; the one inside installs. What is
# installed already need not lie in the folder of downloads.
apt-get clean
mapfile -t backports < <(sed 's/ *#.*//; /^$/d' "$VBW_PACKAGES/backports.list")
wanted=("${backports[@]/%//$SUITE-backports}"
	{linux-binary-,linux-modules-,linux-base-}"$LINUX_RELEASE=$LINUX_VERSION" "$LINUX_SOURCE=$LINUX_VERSION")
apt-get install -y --no-install-recommends --download-only "${wanted[@]}"
env -u APT_CONFIG chroot "$root" apt-get install -y --no-install-recommends --no-download "${wanted[@]}"
check "$root/usr/src/$LINUX_SOURCE.tar.xz" "$LINUX_SOURCE_SHA256"
if [ -z "$LINUX_SOURCE_SHA256" ]; then
	warn "If all tests pass with it, this is the line for scripts/packages/pins:"
	warn "    LINUX=\"$LINUX_VERSION $(sha256sum <"$root/usr/src/$LINUX_SOURCE.tar.xz" | cut -d' ' -f1)\""
fi

# Of the headers only the configuration and the symbols are used: no need for what they depend on.
mkdir "$root/fetch"
cd "$root/fetch"
apt-get download "linux-headers-$LINUX_RELEASE=$LINUX_VERSION"
dpkg-deb -x ./linux-headers-*.deb "$root"
apt-get source --download-only "qemu=$QEMU_VERSION"
check "$(echo qemu_*.dsc)" "$QEMU_DSC_SHA256"
check "$(echo qemu_*.orig.tar.*[xz2])" "$QEMU_ORIG_SHA256"
mkdir -p "$root/usr/src/qemu"
mv qemu_* "$root/usr/src/qemu"
cd /
rm -rf "$root/fetch"

rustc=$(dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${Version}' rustc)
[ "${rustc%%+*}" = "$RUSTC_VERSION" ] ||
	warn "rustc is $rustc, not $RUSTC_VERSION: the check of the kernel's symbols will tell whether it will do."

cat >"$root/etc/vbw-root" <<EOF
LINUX_VERSION=$LINUX_VERSION
LINUX_RELEASE=$LINUX_RELEASE
LINUX_SOURCE=$LINUX_SOURCE
QEMU_VERSION=$QEMU_VERSION
EOF
