#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/qemu-install.sh PREFIX
#
# Builds the patched QEMU and copies it to PREFIX/bin, and its firmware to PREFIX/share/qemu, where it looks
# for it. It then runs without the build root on a system that has the packages that are named at the end,
# and in PREFIX/share/qemu/packages: those of the build root's Debian.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
[ -n "${1-}" ] || die "where to? make qemu_install PREFIX=/opt/qemu-wce, for example"
prefix=$1

# Inside the root: the packages of the libraries that the programs are linked with.
packages() {
	ldd "$1"/{qemu-system-x86_64,qemu-img,qemu-io,qemu-storage-daemon} | awk '/=> \// { print $3 }' | sort -u |
		while read -r library; do
			# Where a package has it may be by way of another name of the folder.
			dpkg-query -S "$library" 2>/dev/null || dpkg-query -S "/usr$library" || dpkg-query -S "${library#/usr}"
		done | cut -d: -f1 | sort -u
}
if [ "$1" = --packages ]; then
	packages "$2"
	exit
fi

root=$("$VBW_SRC/scripts/buildroot.sh")
qemu=$("$VBW_SRC/scripts/qemu.sh")
lib=$("$VBW_SRC/scripts/enter.sh" "$VBW_SRC/scripts/qemu-install.sh" --packages "$qemu")

mkdir -p "$prefix/bin" "$prefix/share/qemu" ||
	die "$prefix cannot be written to; as root, or with another PREFIX"
# A program that runs cannot be written over, but another file can take its name.
for program in qemu-system-x86_64 qemu-img qemu-io qemu-storage-daemon; do
	install -m 755 "$qemu/$program" "$prefix/bin/.$program"
	mv "$prefix/bin/.$program" "$prefix/bin/$program"
done
# What the devices of this QEMU load: the PC's BIOS, option ROMs, the microvm's.
for file in bios-256k.bin bios-microvm.bin kvmvapic.bin linuxboot_dma.bin multiboot_dma.bin pvh.bin; do
	for folder in seabios qemu; do
		if [ -e "$root/usr/share/$folder/$file" ]; then
			install -m 644 "$root/usr/share/$folder/$file" "$prefix/share/qemu/$file"
			continue 2
		fi
	done
	die "the build root has no firmware $file"
done
echo "$lib" >"$prefix/share/qemu/packages"
say "installed in $prefix; it needs: apt-get install $(paste -sd ' ' <<<"$lib")"
echo "$prefix/bin/qemu-system-x86_64"
