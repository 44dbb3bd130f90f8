#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/run.sh [--kernel RELEASE] [--root-disk] [--no-testdev] [--debug | --kcsan | --intree] CMD [ARG…]
#
# Makes whatever is missing (build root, KDIR, driver, QEMU, test device, initramfs) and runs CMD in the build
# root. All that CMD needs to know of what was built is in the environment that is set below.
# With --kernel the guests' kernel, and the one that the driver is built for, is another one of Debian's, named
# as in scripts/kdir.sh.
# With --root-disk also the Debian that tests/host/test_root_disk.py makes a guest's disk of.
# With --no-testdev the test devices, which only tests need, are left out.
# With --debug the guests' kernel is that of scripts/debug-kernel.sh, not the stock one, and with --kcsan the second
# one that it makes; with --intree it is the one of scripts/intree.sh whose own module the driver is.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
[ $# -gt 0 ] || die "no command; see scripts/run.sh --help"
if [ "$1" = --kernel ]; then
	VBW_KERNEL_RELEASE=$(kernel_release "${2?which kernel?}")
	export VBW_KERNEL_RELEASE
	in_root || fetch_kernel "$VBW_KERNEL_RELEASE"
	shift 2
	[ $# -gt 0 ] || die "no command; see scripts/run.sh --help"
fi
if [ "$1" = --root-disk ]; then
	# It comes from outside, where the network is.
	in_root || VBW_ROOT_DISK=$("$VBW_SRC/scripts/rootdisk.sh")
	export VBW_ROOT_DISK=${VBW_ROOT_DISK:-$("$VBW_SRC/scripts/rootdisk.sh")}
	shift
	[ $# -gt 0 ] || die "no command; see scripts/run.sh --help"
fi
fetch_qemu
run_inside "$@"

testdev=yes
if [ "$1" = --no-testdev ]; then
	testdev=
	shift
	[ $# -gt 0 ] || die "no command; see scripts/run.sh --help"
fi
export VBW_DEBUG="" VBW_INTREE=""
case $1 in
--debug) VBW_DEBUG=kasan ;;
--kcsan) VBW_DEBUG=kcsan ;;
--intree) VBW_INTREE=1 ;;
esac
if [ -n "$VBW_DEBUG$VBW_INTREE" ]; then
	shift
	[ $# -gt 0 ] || die "no command; see scripts/run.sh --help"
fi
versions

# The host's own tools may have other names, or no packages, so this stops nobody.
if [ "${BUILDROOT-}" = none ] && command -v dpkg-query >/dev/null; then
	mapfile -t lacking < <(comm -23 <(listed "$PACKAGES"/*.list | sort) \
		<(dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p' | sort))
	[ ${#lacking[@]} -eq 0 ] || say "BUILDROOT=none: not installed here as packages: ${lacking[*]}"
fi

scripts=$VBW_SRC/scripts
export VBW_QEMU_STOCK=/usr/bin
export ACCEL=${ACCEL-}

# QEMU has nothing to do with what comes before it here, and much of either keeps only one processor busy. Where a
# clock is shown, the lines of the one that goes on aside overwrite it.
aside() {
	local line
	while IFS= read -r line; do
		[ ! -t 2 ] || printf '\r\033[K' >&2
		printf '%s\n' "$line" >&2
	done
}
answer=$(mktemp)
"$scripts/qemu.sh" >"$answer" 2> >(aside) &
qemu=$!
trap 'kill "$qemu" 2>/dev/null; rm -f "$answer"' EXIT

if [ -n "$VBW_DEBUG" ]; then
	kernel=()
	[ "$VBW_DEBUG" = kasan ] || kernel+=("--$VBW_DEBUG")
	kdir=$("$scripts/debug-kernel.sh" "${kernel[@]}")
	VBW_MODULES=$kdir/guest
	VBW_RELEASE=$(cat "$VBW_MODULES/release")
elif [ -n "$VBW_INTREE" ]; then
	VBW_INTREE=$("$scripts/intree.sh" --kernels)
	VBW_MODULES=$VBW_INTREE/module
	VBW_RELEASE=$(cat "$VBW_MODULES/release")
else
	VBW_RELEASE=${VBW_KERNEL_RELEASE:-$LINUX_RELEASE}
	kdir=$("$scripts/kdir.sh" ${VBW_KERNEL_RELEASE:+--keep} "$VBW_RELEASE")
	VBW_MODULES=${VBW_KERNEL_PACKAGES-}/usr/lib/modules/$VBW_RELEASE
fi
VBW_KERNEL=$VBW_MODULES/vmlinuz
[ -e "$VBW_KERNEL" ] || VBW_KERNEL=/boot/vmlinuz-$VBW_RELEASE
export VBW_RELEASE VBW_MODULES VBW_KERNEL

if [ -n "$VBW_INTREE" ]; then
	VBW_MODULE=$VBW_MODULES/kernel/drivers/block/virtio_blk_wce/virtio_blk_wce.ko
else
	VBW_MODULE=$("$scripts/module.sh" "$kdir")
fi
VBW_INITRAMFS=$("$scripts/initramfs.sh" "$VBW_MODULES")
[ -z "$testdev" ] || VBW_TESTDEV=$("$scripts/testdev.sh")
wait "$qemu" || exit
VBW_QEMU=$(cat "$answer")
rm -f "$answer"
# As long as CMD runs, no other run may remove what is beyond the number of parts that are kept.
for path in "$VBW_MODULE" "$VBW_QEMU" ${VBW_TESTDEV:+"$VBW_TESTDEV"} "$VBW_INITRAMFS"; do
	path=${path#"$VBW_CACHE"/}
	kind=${path%%/*} path=${path#*/}
	lock shared "$kind-${path%%/*}" "$kind"
done
mkdir -p "$VBW_CACHE/out"
VBW_OUT=${VBW_OUT:-$(mktemp -d "$VBW_CACHE/out/$(date +%Y%m%d-%H%M%S)-XXX")}
export VBW_MODULE VBW_QEMU VBW_TESTDEV="${VBW_TESTDEV-}" VBW_INITRAMFS VBW_OUT

exec "$@"
