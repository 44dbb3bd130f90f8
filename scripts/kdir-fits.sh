#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/kdir-fits.sh config|symbols TREE HEADERS
#
# Checks that a module built against the kernel tree TREE fits the stock kernel whose configuration
# and Module.symvers are in HEADERS: that Rust is usable with the compilers here (config), and, once
# the tree is prepared, that it exports the same Rust symbols (symbols). If not, says which compiler
# the kernel wants.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
[ $# -eq 3 ] || die "three arguments, please; see scripts/kdir-fits.sh --help"
tree=$2 headers=$3

setting() { sed -n "s/^CONFIG_$1=\"*\([^\"]*\)\"*\$/\1/p" "$2"; }

# A mismatch always comes from another compiler.
explain() {
	local release wants
	release=$(basename "$headers")
	release=${release#linux-headers-}
	wants=$(setting RUSTC_VERSION_TEXT "$headers/.config")
	[ -n "$wants" ] || die "kernel $release was built without Rust"
	die "$1: kernel $release wants $wants; here is $(rustc --version || echo no rustc)"
}

# Whatever this tree exports from Rust the stock kernel must export, and all of the stock kernel's
# mangled names must be in this tree.
symbols() {
	local ours theirs differ
	ours=$(sed -n 's/^EXPORT_SYMBOL_RUST_GPL(\(.*\));$/\1/p' "$tree"/rust/exports_*_generated.h | sort -u)
	theirs=$(awk '$3 == "vmlinux" { print $2 }' "$headers/Module.symvers" | sort -u)
	differ=$({
		comm -23 <(echo "$ours") <(echo "$theirs")
		comm -13 <(echo "$ours") <(grep ^_R <<<"$theirs")
	} | wc -l)
	if [ -z "$ours" ] || [ "$differ" -ne 0 ]; then
		explain "$differ Rust symbols of this tree and of the stock kernel are not the same"
	fi
	say "KDIR: all $(wc -l <<<"$ours") Rust symbols are the stock kernel's"
}

case $1 in
config) [ "$(setting RUST "$tree/.config")" = y ] || explain "Rust is not usable for this kernel" ;;
symbols) symbols ;;
*) die "$1? see scripts/kdir-fits.sh --help" ;;
esac
