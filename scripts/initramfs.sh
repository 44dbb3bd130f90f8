#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Make the guest's base initramfs from packages of the build root and print its
# path. What changes with every run (init, the driver, the test scripts) is not
# in it: the harness appends that as a second archive.
set -euo pipefail

usage()
{
	cat <<'EOF'
Usage: scripts/initramfs.sh [RELEASE]

Makes the base initramfs for guests that run kernel RELEASE (default: VBW_RELEASE,
or the only kernel under /usr/lib/modules) and prints its path. Runs in the build
root; it needs busybox-static, fio, cpio, xz-utils, gcc and libc6-dev.
EOF
}

case ${1:-} in
-h | --help)
	usage
	exit 0
	;;
esac

src=$(cd "$(dirname "$0")/.." && pwd)
cache=${VBW_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/virtio-blk-wce}
modules=(drivers/block/virtio_blk drivers/virtio/virtio_mmio)

release=${1:-${VBW_RELEASE:-}}
if [[ -z $release ]]; then
	releases=(/usr/lib/modules/*/kernel)
	if ((${#releases[@]} != 1)) || [[ ! -d ${releases[0]} ]]; then
		echo "initramfs.sh: say which kernel: ${releases[*]}" >&2
		exit 2
	fi
	release=$(basename "$(dirname "${releases[0]}")")
fi

tools=(/usr/bin/busybox /usr/bin/fio)
module_files=()
for module in "${modules[@]}"; do
	module_files+=("/usr/lib/modules/$release/kernel/$module.ko.xz")
done
for file in "${tools[@]}" "${module_files[@]}"; do
	if [[ ! -e $file ]]; then
		echo "initramfs.sh: $file is missing: is its package in the build root?" >&2
		exit 1
	fi
done
mapfile -t libraries < <(ldd /usr/bin/fio | grep -o '/[^ ]*' | sort)

key=$(sha256sum "$0" "$src/tests/guest/vbwtool.c" "${tools[@]}" "${module_files[@]}" \
	"${libraries[@]}" | cut -d' ' -f1 | sha256sum | cut -c1-16)
result=$cache/initramfs-$key.cpio

mkdir -p "$cache"
exec 9>"$cache/initramfs.lock"
flock 9
if [[ -e $result ]]; then
	echo "$result"
	exit 0
fi

work=$(mktemp -d "$cache/initramfs.XXXXXX")
trap 'rm -rf "$work"' EXIT
tree=$work/tree
mkdir -p "$tree"/{bin,dev,proc,sys,tmp,run,lib/modules,usr/bin}

cp /usr/bin/busybox "$tree/bin/busybox"
for applet in $(busybox --list); do
	[[ -e $tree/bin/$applet ]] || ln -s busybox "$tree/bin/$applet"
done

cp /usr/bin/fio "$tree/usr/bin/fio"
for library in "${libraries[@]}"; do
	mkdir -p "$tree$(dirname "$library")"
	cp -L "$library" "$tree$library"
done

gcc -static -O2 -Wall -Wextra -Werror -o "$tree/bin/vbwtool" "$src/tests/guest/vbwtool.c"
strip "$tree/bin/vbwtool"

for file in "${module_files[@]}"; do
	xz -dc "$file" >"$tree/lib/modules/$(basename "${file%.xz}")"
done

# Not compressed: reading 60 MB costs a guest less than unpacking 20 MB.
find "$tree" -exec touch -h -d @0 {} +
(cd "$tree" && find . -mindepth 1 -print0 | LC_ALL=C sort -z |
	cpio --null --create --format=newc --owner=0:0 --reproducible --quiet) >"$work/cpio"
mv "$work/cpio" "$result"
echo "$result"
