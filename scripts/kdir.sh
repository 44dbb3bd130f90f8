#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/kdir.sh [RELEASE]
#
# Makes sure that a KDIR with Rust metadata exists for a Debian kernel, the pinned one if no RELEASE
# (what uname -r prints) is named, and prints its path.
#
# Debian's headers package lacks the Rust metadata. It can be made from linux-source, the headers'
# configuration and the same compilers, because the names of Rust symbols contain a hash of the
# compiler and of the crates: if all names that this tree exports are the stock kernel's, then a
# module built against the tree fits the kernel. That is checked before the KDIR counts as whole.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"

# What the root lacks is fetched from outside, where the network is.
if ! in_root && [ -n "${1-}" ]; then
	root=$("$VBW_SRC/scripts/buildroot.sh")
	[ -d "$root/usr/src/linux-headers-$1" ] ||
		VBW_KERNEL_PACKAGES=$("$VBW_SRC/scripts/kdir-fetch.sh" "$1")
	export VBW_KERNEL_PACKAGES=${VBW_KERNEL_PACKAGES-}
fi
run_inside "$@"

versions
release=${1:-$LINUX_RELEASE}
source=linux-source-$(cut -d. -f1,2 <<<"$release")
headers=${VBW_KERNEL_PACKAGES-}/usr/src/linux-headers-$release
archive=${VBW_KERNEL_PACKAGES-}/usr/src/$source.tar.xz

# Without these there is nothing to tell a KDIR by.
if [ ! -e "$headers/.config" ] || [ ! -e "$headers/Module.symvers" ]; then
	"$VBW_SRC/scripts/kernel-needs.sh" source "$release" "$headers" "$archive"
fi
jobs=$(nproc)

# The tree is cut to what a module can need: no documentation, no other architectures' code, no C
# source of drivers and the like. What is left can be configured, prepared, linted, documented.
unpack() {
	local top=$source
	tar -C "$1" --strip-components=1 --use-compress-program="xz -dT$jobs" -xf "$archive" --anchored \
		--exclude="$top/Documentation/*/*" --exclude="$top/tools/testing/*" \
		--exclude="$top/arch/[!x]*/*.[chS]" --exclude="$top/arch/[!x]*/*.dts*" \
		--exclude="$top/drivers/*.c" --exclude="$top/sound/*.c" \
		--exclude="$top/fs/*.c" --exclude="$top/net/*.c" \
		--exclude="$top/drivers/gpu/drm/*.h" --exclude="$top/drivers/net/*.h"
}

# The part of a release that the version does not tell goes into localversion, as Debian does it.
configure() {
	cd "$1"
	cp "$headers/.config" .config

	printf '%s\n' "${release#"$(make -s kernelversion)"}" >localversion
	make olddefconfig
}

prepare() {
	cd "$1"
	make "-j$jobs" prepare modules_prepare
	cp "$headers/Module.symvers" .
}

make_kdir() {
	"$VBW_SRC/scripts/kernel-needs.sh" source "$release" "$headers" "$archive"
	step "KDIR: unpacking $(basename "$archive")" "$PART_LOG.unpack.log" unpack "$1"
	step "KDIR: configuring as $release" "$PART_LOG.configure.log" configure "$1"
	"$VBW_SRC/scripts/kdir-fits.sh" config "$1" "$headers"
	step "KDIR: preparing headers, tools and the kernel crate" "$PART_LOG.prepare.log" prepare "$1"
	"$VBW_SRC/scripts/kdir-fits.sh" symbols "$1" "$headers"
	[ "$(make -s -C "$1" kernelrelease)" = "$release" ] || die "KDIR: its release is not $release"
}

part kdir "$(key "$release" "$(tools build.list kernel.list)" "$(declare -f unpack configure prepare)" \
	"$(digest "$headers/.config" "$headers/Module.symvers")")" make_kdir
prune kdir 2
echo "$PART"
