#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/module.sh [--objects] [KDIR]
#
# Builds the driver against a KDIR, by default the one of the pinned stock kernel, and prints the
# path of virtio_blk_wce.ko. What scripts/kdir.sh made needs the compilers of the build root; any
# other KDIR, a distribution's own or a tree that you built, needs those that it was made with,
# which are this host's.
#
# With --objects, brings this checkout's objects up to date, and prints the folder in which Kbuild
# keeps them and the commands that made them.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
objects=
case ${2-${1-}} in
"" | --objects | "$VBW_CACHE"/*) run_inside "$@" ;;
esac
if [ "${1-}" = --objects ]; then
	objects=yes
	shift
fi

kdir=${1:-$("$VBW_SRC/scripts/kdir.sh")}
[ -d "$kdir" ] || die "KDIR=$kdir: no such folder"
kdir=$(cd "$kdir" && pwd -P)
[ -e "$kdir/rust/libkernel.rmeta" ] || "$VBW_SRC/scripts/kernel-needs.sh" kdir "$kdir"

# Kbuild builds what changed, in one folder for each checkout and KDIR, and this keeps the result
# apart, keyed by what it was made from, so that nobody loads a module that is being written.
work=$VBW_CACHE/module-work/$(key "$VBW_SRC" "$kdir")
sources=("$VBW_SRC"/{Kbuild,include,rust,drivers})

build() {
	# Kbuild keeps what it made, also when it was killed in the middle of writing it.
	[ ! -e "$work/.building" ] || rm -rf "$work"
	mkdir -p "$work"
	: >"$work/.building"
	# shellcheck disable=SC2046 # nothing, or one word
	make -C "$kdir" M="$VBW_SRC" MO="$work" $(kbuild_llvm "$kdir") -j "$(nproc)" modules
	rm "$work/.building"
}

compile() {
	"$VBW_SRC/scripts/kernel-needs.sh" kdir "$kdir"
	lock exclusive "module-work-${work##*/}" "the driver's objects"
	step "driver: compiling" "$1" build
}

make_module() {
	compile "$PART_LOG.log"
	cp "$work/virtio_blk_wce.ko" "$1"
	unlock "$LOCK_FD"
}

# The module of these sources may be there because another checkout has built it.
if [ -n "$objects" ]; then
	compile "$VBW_LOG/objects.log"
	echo "$work"
	exit
fi

part module "$(key "$kdir" "$(digest "${sources[@]}")" "$(stat -c %Y "$kdir/rust/libkernel.rmeta")")" make_module
prune module 20
echo "$PART/virtio_blk_wce.ko"
