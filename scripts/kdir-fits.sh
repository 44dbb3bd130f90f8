#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/kdir-fits.sh config|symbols TREE HEADERS
#
# Checks that a module built against the kernel tree TREE fits the stock kernel whose configuration
# and Module.symvers are in HEADERS: that the configuration has come out the same (config), and, once the
# tree is prepared, that it exports the same Rust symbols (symbols). What can be told before, by
# scripts/kernel-needs.sh, has been.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
[ $# -eq 3 ] || die "three arguments, please; see scripts/kdir-fits.sh --help"
tree=$2 headers=$3

release=$(basename "$headers")
release=${release#linux-headers-}

# Kconfig drops without a word what it finds no tool for, and what a tool is too old for. A module that is
# built with other settings loads all the same, and misreads the kernel's structures. Which versions the
# tools have, and what they can do, only matters by the settings that follow from it.
config() {
	local differ
	differ=$(comm -3 <(settings "$tree/.config") <(settings "$headers/.config") |
		sed 's/^[[:space:]]*//; s/=.*//' | sort -u | paste -sd ' ')
	[ -z "$differ" ] ||
		die "the configuration of kernel $release comes out different here, by other tools or another linux-source: $differ"
}

settings() { grep '^CONFIG_' "$1" | grep -vE '_VERSION(_TEXT)?=|^CONFIG_[A-Z]+_(HAS|SUPPORTS?)_' | sort; }

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
		die "$differ Rust symbols of this tree and of the stock kernel are not the same: kernel $release was built" \
			"from another source than linux-source here, or by another compiler than $(rustc --version)"
	fi
	say "KDIR: all $(wc -l <<<"$ours") Rust symbols are the stock kernel's"
}

case $1 in
config) config ;;
symbols) symbols ;;
*) die "$1? see scripts/kdir-fits.sh --help" ;;
esac
