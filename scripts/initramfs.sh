#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/initramfs.sh [MODULES]
#
# Makes the base initramfs for guests with the kernel whose modules are in the folder MODULES
# (default: VBW_MODULES, or those of the only kernel in the build root) from packages of the build
# root: busybox, fio with its libraries, the kernel's modules that a test needs, and the tools of
# tests/guest. Prints its path. What changes with every run (init, the driver, the test scripts) is not
# in it; the harness appends that as a second archive.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
run_inside "$@"

tools=("$VBW_SRC"/tests/guest/*.c)
prove=("$VBW_SRC"/tests/guest/provetool/*.[ch])
modules=(drivers/block/virtio_blk drivers/virtio/virtio_mmio drivers/iommu/virtio-iommu)
# Those that some kernels have built in.
perhaps=(block/mq-deadline)

folder=${1:-${VBW_MODULES:-}}
if [ -z "$folder" ]; then
	folders=(/usr/lib/modules/*/kernel)
	if [ "${#folders[@]}" -ne 1 ] || [ ! -d "${folders[0]}" ]; then
		die "which kernel? There are: ${folders[*]}"
	fi
	folder=$(dirname "${folders[0]}")
fi

binaries=(/usr/bin/busybox /usr/bin/fio)
module_files=()
for module in "${modules[@]}" "${perhaps[@]}"; do
	file=$folder/kernel/$module.ko
	# Distributions compress them.
	[ -e "$file" ] || file=$file.xz
	[[ ! -e $file && " ${perhaps[*]} " == *" $module "* ]] || module_files+=("$file")
done
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
	for file in "${tools[@]}"; do
		gcc -static -O2 -Wall -Wextra -Werror -s -o "$tree/bin/$(basename "$file" .c)" "$file" -luring
	done
	gcc -static -O2 -Wall -Wextra -Werror -s -o "$tree/bin/provetool" "$VBW_SRC"/tests/guest/provetool/*.c
	for file in "${module_files[@]}"; do
		case $file in
		*.xz) xz -dc "$file" >"$tree/lib/modules/$(basename "${file%.xz}")" ;;
		*) cp "$file" "$tree/lib/modules/" ;;
		esac
	done
	find "$tree" -exec touch -h -d @0 {} +
	(cd "$tree" && find . -mindepth 1 -print0 | LC_ALL=C sort -z |
		cpio --null --create --format=newc --owner=0:0 --reproducible --quiet) >"$result"
	rm -rf "$tree"
}

inputs=("$0" "${tools[@]}" "${prove[@]}" "${binaries[@]}" "${module_files[@]}" "${libraries[@]}")
part initramfs "$(key "$folder" "$(sha256sum "${inputs[@]}" | cut -d' ' -f1)")" make_initramfs
prune initramfs 8
echo "$PART/initramfs.cpio"
