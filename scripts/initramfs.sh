#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/initramfs.sh [RELEASE]
#
# Makes the base initramfs for guests with kernel RELEASE (default: VBW_RELEASE, or the only kernel
# in the build root) from packages of the build root: busybox, fio with its libraries, the kernel's
# modules that a test needs, and vbwtool. Prints its path. What changes with every run (init, the
# driver, the test scripts) is not in it; the harness appends that as a second archive.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
run_inside "$@"

tool=$VBW_SRC/tests/guest/vbwtool.c
modules=(drivers/block/virtio_blk drivers/virtio/virtio_mmio)

release=${1:-${VBW_RELEASE:-}}
if [ -z "$release" ]; then
	releases=(/usr/lib/modules/*/kernel)
	if [ "${#releases[@]}" -ne 1 ] || [ ! -d "${releases[0]}" ]; then
		die "which kernel? There are: ${releases[*]}"
	fi
	release=$(basename "$(dirname "${releases[0]}")")
fi

binaries=(/usr/bin/busybox /usr/bin/fio)
module_files=("${modules[@]/#//usr/lib/modules/$release/kernel/}")
module_files=("${module_files[@]/%/.ko.xz}")
for file in "${binaries[@]}" "${module_files[@]}"; do
	[ -e "$file" ] || die "$file is missing: its package belongs in the build root"
done
mapfile -t libraries < <(ldd /usr/bin/fio | grep -o '/[^ ]*' | sort)

# Not compressed: reading 60 MB costs an emulated guest less than unpacking 20 MB.
make_initramfs()
{
	local result=$1/initramfs.cpio tree=$1/tree file applet
	mkdir -p "$tree"/{bin,dev,proc,sys,tmp,run,lib/modules,usr/bin}
	cp /usr/bin/busybox "$tree/bin/busybox"
	for applet in $(busybox --list); do
		[ -e "$tree/bin/$applet" ] || ln -s busybox "$tree/bin/$applet"
	done
	cp /usr/bin/fio "$tree/usr/bin/fio"
	for file in "${libraries[@]}"; do
		mkdir -p "$tree$(dirname "$file")"
		cp -L "$file" "$tree$file"
	done
	gcc -static -O2 -Wall -Wextra -Werror -s -o "$tree/bin/vbwtool" "$tool"
	for file in "${module_files[@]}"; do
		xz -dc "$file" >"$tree/lib/modules/$(basename "${file%.xz}")"
	done
	find "$tree" -exec touch -h -d @0 {} +
	(cd "$tree" && find . -mindepth 1 -print0 | LC_ALL=C sort -z |
		cpio --null --create --format=newc --owner=0:0 --reproducible --quiet) >"$result"
	rm -rf "$tree"
}

inputs=("$0" "$tool" "${binaries[@]}" "${module_files[@]}" "${libraries[@]}")
part initramfs "$(key "$release" "$(sha256sum "${inputs[@]}" | cut -d' ' -f1)")" make_initramfs
prune initramfs 3
echo "$PART/initramfs.cpio"
