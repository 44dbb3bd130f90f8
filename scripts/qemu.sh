#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/qemu.sh [--first N | --patches | --source |
#        --tests [--unpatched | --first N | --sanitize | --coverage] CMD… | --fuzz CMD…]
#
# Makes sure that QEMU with all series of qemu-patches is built and prints the folder that holds
# qemu-system-x86_64, qemu-img, qemu-io and qemu-storage-daemon. With --first it is a QEMU that has only N
# of the patches, or none, to compare with. With --patches nothing is built, and it prints the patches in the
# order in which they are applied, as paths below qemu-patches. With --source nothing is built either, and
# the folder that it prints holds the unpatched source. With --tests QEMU's own test programs are built as
# well and CMD runs in the build folder, which nobody else can change in the meantime, with the names of the
# files that the patches touch on standard input. --unpatched does that with a build without the patches, to
# compare with, --first with one that has only N of them, --sanitize with one that has AddressSanitizer and
# UndefinedBehaviorSanitizer, --coverage with one that counts for gcov how often each line is executed, and --fuzz
# with QEMU's fuzz targets, which are made in the same tree as --sanitize.
#
# VBW_QEMU_RELEASE=10.2 does all that with another release, for which there is qemu-patches/10.2.
#
# There is one work tree for each source, set of compilers and configuration. A change to a patch
# changes only the files in it that come out different, so that ninja rebuilds what depends on
# them; what is built is then copied to a folder of its own, keyed by the patches, and never
# changes again.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"

PATCHES=$VBW_SRC/qemu-patches
# The series, in the order in which they are applied.
SERIES=(fixes reopen tests set-wce)
# What another release has instead of patches of the same name or besides, the list of those that it does
# not need, and the devices that it needs besides.
OTHERS=$PATCHES/${VBW_QEMU_RELEASE-}

# names LIST: the names in it, none if the file is not there.
names() { [ ! -e "$1" ] || listed "$1"; }

# The patches of all series, or as many of them as head -n understands, as paths below qemu-patches.
first=-0
patches() {
	local series name
	for series in "${SERIES[@]}"; do
		for name in "$PATCHES/$series"/*.patch "$OTHERS/$series"/*.patch; do
			[ ! -e "$name" ] || [ "${name##*/}" = 0000-cover-letter.patch ] || echo "$series/${name##*/}"
		done | LC_ALL=C sort -u
	done | { grep -Fvxf <(names "$OTHERS/dropped") || true; } | head -n "$first" | while read -r name; do
		[ ! -e "$OTHERS/$name" ] || name=$(realpath --relative-to="$PATCHES" "$OTHERS/$name")
		echo "$name"
	done
}

if [ "${1-}" = --patches ]; then
	patches
	exit 0
fi

fetch_qemu
run_inside "$@"

package=${VBW_QEMU_PACKAGE:-/usr/src/qemu}
sources=("$package"/qemu_*.dsc)
[ -e "${sources[0]}" ] || die "no QEMU source package in $package; get it there with: apt-get source --download-only qemu"
dsc=${sources[0]}

DEVICES=("$VBW_SRC/scripts/qemu-devices.mak")
[ ! -e "$OTHERS/devices.mak" ] || DEVICES+=("$OTHERS/devices.mak")
DEVICES_IN_TREE=configs/devices/x86_64-softmmu/vbw.mak
PROGRAMS=(qemu-system-x86_64 qemu-img qemu-io storage-daemon/qemu-storage-daemon)

TESTS=(
	"${PROGRAMS[@]}" qemu-nbd tests/qtest/qos-test
	tests/unit/test-{bdrv-drain,bdrv-graph-mod,block-backend,block-iothread,throttle}
)

CONFIGURE=(
	--target-list=x86_64-softmmu
	--without-default-features --without-default-devices --with-devices-x86_64=vbw
	--enable-tcg --enable-kvm --enable-plugins
	--enable-linux-aio --enable-linux-io-uring
	--enable-vhost-user --enable-vhost-user-blk-server
	--enable-tools --enable-fdt=system --enable-nettle
	--firmwarepath=/usr/share/qemu:/usr/share/seabios
	--enable-werror --disable-debug-info --disable-docs --disable-install-blobs
)

# What the fuzz targets are made of is instrumented for the fuzzer, too, which is part of clang. It does
# no harm to other programs, and one build less is needed.
SANITIZE=(--cc=clang-19 --cxx=clang++-19 --enable-asan --enable-ubsan --enable-fuzzing)

# The files that a patch names on either side.
touched() {
	awk '/^(---|\+\+\+) [ab]\// { sub(/^[ab]\//, "", $2); print $2 }
	     /^(rename|copy) (from|to) / { print $3 }' "$@" | sort -u
}

unpack() {
	dpkg-source --no-check -x "$dsc" "$1/source"
	rm -rf "$1/source/roms"
}
make_pristine() { step "QEMU: unpacking $(basename "$dsc" .dsc)" "$PART_LOG.unpack.log" unpack "$1"; }

# patched FOLDER: puts every file that the patches touch, as they leave it, into FOLDER.
patched() {
	local folder=$1 name file names=()
	mapfile -t names < <(patches)
	: >"$folder.files"
	[ ${#names[@]} -gt 0 ] || return 0
	cd "$PATCHES"
	touched "${names[@]}" >"$folder.files"
	while read -r file; do
		mkdir -p "$folder/$(dirname "$file")"
		[ ! -e "$pristine/$file" ] || cp "$pristine/$file" "$folder/$file"
	done <"$folder.files"
	for name in "${names[@]}"; do
		echo "$name"
		patch --directory="$folder" --strip=1 --fuzz=0 --no-backup-if-mismatch --batch --forward <"$name"
	done
}

# Brings the work tree to what the patches say. What earlier ones touched is remembered until
# it is back to what it was, also when this is interrupted.
sync_tree() {
	local scratch=$work/patched file from
	rm -rf "$scratch" "$scratch.files"
	mkdir -p "$scratch" "$scratch/$(dirname "$DEVICES_IN_TREE")"
	patched "$scratch"
	cat "${DEVICES[@]}" >"$scratch/$DEVICES_IN_TREE"
	echo "$DEVICES_IN_TREE" >>"$scratch.files"

	touch "$work/touched"
	sort -u "$work/touched" "$scratch.files" >"$work/touched.new"
	mv "$work/touched.new" "$work/touched"
	while read -r file; do
		from=$pristine/$file
		! grep -Fxq -- "$file" "$scratch.files" || from=$scratch/$file
		if [ ! -e "$from" ]; then
			rm -f "$work/source/$file"
		elif ! cmp -s "$from" "$work/source/$file"; then
			echo "changed: $file"
			mkdir -p "$(dirname "$work/source/$file")"
			cp --preserve=mode "$from" "$work/new"
			mv "$work/new" "$work/source/$file"
		fi
	done <"$work/touched"
	mv "$scratch.files" "$work/touched"
}

configure() {
	rm -rf "$work/build"
	mkdir -p "$work/build"
	cd "$work/build"
	../source/configure "${CONFIGURE[@]}"
	: >"$work/configured"
}

compile() { ninja -C "$work/build" -j "$(nproc)" "$@"; }

# build_in_tree LOG TARGET…: brings the work tree up to date. Holds its lock; unlock "$held" ends that.
build_in_tree() {
	local log=$1
	shift
	lock exclusive "qemu-work-${work##*/}" "QEMU's work tree"
	held=$LOCK_FD
	if [ ! -e "$work/$STAMP" ]; then
		remove_tree "$work"
		mkdir -p "$work"
		cp -a --reflink=auto "$pristine" "$work/source"
		: >"$work/$STAMP"
	fi
	step "QEMU: applying $(patches | wc -l) patches" "$log.patch.log" sync_tree
	[ -e "$work/configured" ] || step "QEMU: configuring" "$log.configure.log" configure
	step "QEMU: compiling" "$log.compile.log" compile "$@"
	touch "$work/$STAMP"
}

make_qemu() {
	local held
	build_in_tree "$PART_LOG" "${PROGRAMS[@]}"
	(cd "$work/build" && cp --reflink=auto "${PROGRAMS[@]}" "$1")
	unlock "$held"
}

part qemu-source "$(key "$(digest "$dsc")" "$(declare -f unpack)")" make_pristine
pristine=$PART/source
if [ "${1-}" = --source ]; then
	echo "$pristine"
	exit 0
fi

# What to build in the work tree for CMD: nothing, if there is none.
targets=()
log=$VBW_LOG/qemu-tests
variant=() sanitize=()
case ${1-} in
--first)
	first=${2:?--first needs a number of patches}
	variant=(first)
	;;
--tests)
	targets=("${TESTS[@]}")
	shift
	case ${1-} in
	--unpatched)
		SERIES=()
		variant=(unpatched)
		shift
		;;
	--first)
		# One tree for every N, so that only what a patch changes is built anew.
		first=${2:?--first needs a number of patches}
		variant=(first)
		log=$VBW_LOG/qemu-tests-first
		shift 2
		;;
	--sanitize)
		sanitize=("${SANITIZE[@]}")
		log=$VBW_LOG/qemu-tests-sanitized
		shift
		;;
	--coverage)
		CONFIGURE+=(--enable-gcov)
		log=$VBW_LOG/qemu-tests-coverage
		shift
		;;
	esac
	# The unit tests that the patches bring or change.
	mapfile -t names < <(patches)
	mapfile -t -O ${#targets[@]} targets < <(cd "$PATCHES" && touched "${names[@]}" </dev/null |
		sed -n 's|^\(tests/unit/test-.*\)\.c$|\1|p')
	;;
--fuzz)
	targets=(qemu-fuzz-x86_64)
	sanitize=("${SANITIZE[@]}")
	log=$VBW_LOG/qemu-fuzz
	shift
	;;
esac
CONFIGURE+=("${sanitize[@]}")
lists=(build.list qemu.list)
[ ${#sanitize[@]} -eq 0 ] || lists+=(debug.list fuzz.list)
work=$VBW_CACHE/qemu-work/$(key "$PART" "$(tools "${lists[@]}")" "${CONFIGURE[*]}" "$(digest "${DEVICES[0]}")" "${variant[@]}")
mapfile -t names < <(patches)
if [ ${#targets[@]} -gt 0 ]; then
	build_in_tree "$log" "${targets[@]}"
	cd "$work/build"
	exec "$@" <"$work/touched"
fi
part qemu "$(key "$work" "${PROGRAMS[*]}" "${names[*]}" "$(digest "${names[@]/#/$PATCHES/}")")" make_qemu
prune qemu-source 2
prune qemu-work 6
prune qemu 6
echo "$PART"
