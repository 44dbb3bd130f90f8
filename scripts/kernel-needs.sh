#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/kernel-needs.sh kdir KDIR
#        scripts/kernel-needs.sh source RELEASE HEADERS ARCHIVE
#
# What the driver needs of a kernel, and of the tools that build for it. Says in one line what is
# missing or does not fit, before anything is built.
#
# kdir is for a tree with Rust metadata, against which the driver is built. source is for what such a
# tree is made from: the HEADERS folder of Debian's kernel RELEASE, and the ARCHIVE of linux-source.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"

# The first release whose Rust abstractions are those that the layer below the driver uses, and the last
# one that the driver was tried with. A later one may do.
FIRST=7.2 LAST=7.3
# Built in or as a module.
SETTINGS=(MODULES RUST BLOCK SYSFS VIRTIO X86_64)
# The crates of that release: metadata, and procedural macros.
METADATA=(core compiler_builtins ffi build_error pin_init zerocopy bindings uapi kernel)
MACROS=(macros pin_init_internal zerocopy_derive)
# What "make modules_prepare" leaves, besides the crates.
PREPARED=(include/generated/autoconf.h include/generated/rustc_cfg scripts/target.json
	scripts/basic/fixdep scripts/mod/modpost scripts/module.lds Module.symvers)

setting() { sed -n "s/^CONFIG_$1=\"*\([^\"]*\)\"*\$/\1/p" "$2"; }

version() {
	local release=$1 version
	version=$(cut -d. -f1,2 <<<"${release%%[-+]*}")
	[ "$(printf '%s\n' "$FIRST" "$version" | sort -V | head -n 1)" = "$FIRST" ] ||
		die "kernel $release is too old: the driver needs the Rust abstractions of Linux $FIRST or later"
	[ "$(printf '%s\n' "$LAST" "$version" | sort -V | tail -n 1)" = "$LAST" ] ||
		say "warning: kernel $release is newer than $LAST, the last one that the driver was tried with"
}

configuration() {
	local release=$1 config=$2 name lacking=()
	for name in "${SETTINGS[@]}"; do
		grep -q "^CONFIG_$name=[ym]" "$config" || lacking+=("CONFIG_$name")
	done
	[ ${#lacking[@]} -eq 0 ] || die "kernel $release was configured without ${lacking[*]}, which the driver needs"
}

need() { command -v "$1" >/dev/null || die "$1 is missing here; install the package $2"; }

# compilers RELEASE CONFIG: the names of Rust symbols, and the format of metadata, depend on the exact
# version of rustc. bindgen is a program of its own, and loads libclang when it runs.
compilers() {
	local release=$1 config=$2 wants has
	need make make
	if grep -q '^CONFIG_CC_IS_CLANG=y' "$config"; then
		need "clang$(clang_suffix "$config")" "clang$(clang_suffix "$config")"
	else
		need gcc gcc
	fi
	need rustc rustc
	wants=$(setting RUSTC_VERSION_TEXT "$config")
	has=$(rustc --version)
	[ "$has" = "$wants" ] || die "kernel $release wants $wants; here is $has (package rustc)"
	need bindgen bindgen
	: >"$scratch/empty.h"
	bindgen "$scratch/empty.h" >/dev/null 2>&1 ||
		die "bindgen finds no libclang here; install the package libclang-dev"
}

# What makes a KDIR, besides the compilers.
builders() {
	local core
	need flex flex
	need bison bison
	need bc bc
	need xz xz-utils
	! grep -q '^CONFIG_DEBUG_INFO_BTF=y' "$1" || need pahole pahole
	core=$(rustc --print sysroot)/lib/rustlib/src/rust/library/core/src/lib.rs
	[ -e "$core" ] || die "$core is missing here; install the package rust-src"
	need_header gelf.h libelf-dev
	need_header openssl/opensslv.h libssl-dev
}

need_header() { gcc -E -include "$1" -x c /dev/null >/dev/null 2>&1 || die "$1 is missing here; install the package $2"; }

# The version in the source's own Makefile, which is near the beginning of the archive.
archive_version() {
	tar --use-compress-program=xz -xOf "$1" --occurrence=1 "$(basename "$1" .tar.xz)/Makefile" |
		awk -F ' *= *' '/^(VERSION|PATCHLEVEL|SUBLEVEL) / { v = v "." $2 } /^EXTRAVERSION/ { print substr(v, 2) $2; exit }'
}

package() {
	local release=$1 headers=$2 archive=$3 has file source
	source=$(basename "$archive" .tar.xz)
	version "$release"
	for file in "$headers/.config" "$headers/Module.symvers" "$archive"; do
		[ -e "$file" ] || die "$file is missing; install linux-headers-$release and $source"
	done
	configuration "$release" "$headers/.config"
	compilers "$release" "$headers/.config"
	builders "$headers/.config"
	has=$(archive_version "$archive") || die "$archive cannot be read; install $source again"
	[ "$has" = "${release%%[-+]*}" ] ||
		die "$archive is Linux $has, the headers are of ${release%%[-+]*}; install $source of that version"
}

# made_by FILE VERSION: metadata begins with the compiler's version, a macro's object has it in a comment.
made_by() {
	case $1 in
	*.so) grep -aqF "rustc version ${2#rustc }" "$1" ;;
	*) head -c 256 "$1" | grep -aqF "$2" ;;
	esac
}

# Each crate tells which rustc made it. That all are of one build only rustc can tell.
crates() {
	local kdir=$1 name file version complaint
	version=$(rustc --version)
	for name in "${METADATA[@]/%/.rmeta}" "${MACROS[@]/%/.so}"; do
		file=$kdir/rust/lib$name
		[ -e "$file" ] || die "$file is missing; $REMEDY"
		made_by "$file" "$version" || die "$file is not of this $version; $REMEDY"
	done
	complaint=$(printf 'use kernel::prelude::*;\n' |
		OBJTREE=$kdir RUSTC_BOOTSTRAP=1 rustc --edition=2021 --crate-name=probe --crate-type=rlib \
			--emit=metadata="$scratch/probe.rmeta" --target="$kdir/scripts/target.json" -Zunstable-options -Zcrate-attr=no_std \
			-Cpanic=abort --sysroot=/dev/null -L "$kdir/rust" --extern=kernel --cap-lints=allow - 2>&1) ||
		die "the parts of $kdir/rust are not of one build ($(grep -m 1 '^error' <<<"$complaint")); $REMEDY"
}

tree() {
	local kdir=$1 release file
	REMEDY="make the tree again (for a Debian kernel: make kdir KERNEL=<release>)"
	[ -e "$kdir/.config" ] || die "$kdir is no kernel tree: it has no .config"
	release=$(cat "$kdir/include/config/kernel.release" 2>/dev/null) ||
		die "$kdir is not prepared: it has no include/config/kernel.release; run make modules_prepare there"
	version "$release"
	configuration "$release" "$kdir/.config"
	[ -e "$kdir/rust/libkernel.rmeta" ] ||
		die "$kdir has no Rust metadata (rust/libkernel.rmeta); for a Debian kernel: make kdir KERNEL=<release>"
	for file in "${PREPARED[@]}"; do
		[ -e "$kdir/$file" ] || die "$kdir/$file is missing; $REMEDY"
	done
	compilers "$release" "$kdir/.config"
	crates "$kdir"
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
case ${1-} in
kdir) tree "${2?which tree? see scripts/kernel-needs.sh --help}" ;;
source) package "${@:2:3}" ;;
*) die "kdir or source? see scripts/kernel-needs.sh --help" ;;
esac
