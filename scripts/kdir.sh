#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/kdir.sh [--keep] [RELEASE]
#
# Makes sure that a KDIR with Rust metadata exists for a Debian kernel, the pinned one if no RELEASE
# (what uname -r prints, or a flavour of the pinned version, such as rt-amd64) is named, and prints its
# path. With --keep it stays in the cache when others are made.
#
# Debian's headers package lacks the Rust metadata. It can be made from linux-source, the headers'
# configuration and the same compilers, because the names of Rust symbols contain a hash of the
# compiler and of the crates: if all names that this tree exports are the stock kernel's, then a
# module built against the tree fits the kernel. That is checked before the KDIR counts as whole.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"

wanted=()
if [ "${1-}" = --keep ]; then
	wanted=(--keep)
	shift
fi
name=$(kernel_release "${1-}")

# What the root lacks is fetched from outside, where the network is.
if ! in_root && [ -n "$name" ]; then
	fetch_kernel "$name"
fi
run_inside "${wanted[@]}" "$name"

versions
release=${name:-$LINUX_RELEASE}
source=linux-source-$(cut -d. -f1,2 <<<"$release")
packages=${VBW_KERNEL_PACKAGES-}
[ -d "$packages/usr/src/linux-headers-$release" ] || packages=
headers=$packages/usr/src/linux-headers-$release
archive=$packages/usr/src/$source.tar.xz

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
[ ${#wanted[@]} -eq 0 ] || keep "$PART" "$release"
prune kdir 2
echo "$PART"
