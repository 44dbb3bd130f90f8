#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/debug-kernel.sh [--kcsan]
#
# Makes sure that the debug kernel is built and prints its path: a KDIR of the pinned kernel's source
# with KASAN, lockdep and the other checks of scripts/debug.config. Its folder "guest" is for it what
# /usr/lib/modules/RELEASE is for the stock kernel: vmlinuz, release, and the modules below kernel/.
# With --kcsan it is a second one, which looks for data races instead of bad addresses, as
# scripts/kcsan.config says.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
run_inside "$@"

versions
archive=/usr/src/$LINUX_SOURCE.tar.xz
[ -e "$archive" ] || die "$archive is missing; install $LINUX_SOURCE"
kind=debug-kernel
configs=("$VBW_SRC/scripts/debug.config")
sanitizer=()
if [ "${1-}" = --kcsan ]; then
	kind=kcsan-kernel
	configs+=("$VBW_SRC/scripts/kcsan.config")
	sanitizer=(thread)
fi
config=$(mktemp)
trap 'rm -f "$config"' EXIT
# The last line about an option counts.
cat "${configs[@]}" | tac | awk '{ name = $1 == "#" ? $2 : $1; sub(/=.*/, "", name) }
	name ~ /^CONFIG_/ && !seen[name]++' >"$config"
jobs=$(nproc)
# KASAN and Rust go together only with clang, of the LLVM that rustc has.
llvm=LLVM=-19

# Drivers, file systems and architectures that the configuration has nothing of. What it has, or
# what kbuild reads anyway, is compiled or read: a file too few here is an error, never a difference.
unpack() {
	local top=$LINUX_SOURCE
	tar -C "$1" --strip-components=1 --use-compress-program="xz -dT$jobs" -xf "$archive" --anchored \
		--exclude="$top/Documentation/*/*" --exclude="$top/tools/testing/*" \
		--exclude="$top/tools/perf/*" --exclude="$top/sound/*.[ch]" \
		--exclude="$top/arch/[!x]*/*.[chS]" --exclude="$top/arch/[!x]*/*.dts*" \
		--exclude="$top/drivers/gpu/*.[ch]" --exclude="$top/drivers/net/*/*.[ch]" \
		--exclude="$top/drivers/media/*.[ch]" --exclude="$top/drivers/staging/*.[ch]" \
		--exclude="$top/drivers/infiniband/*.[ch]" --exclude="$top/drivers/scsi/*.[ch]" \
		--exclude="$top/drivers/iio/*.[ch]" --exclude="$top/drivers/usb/*.[ch]" \
		--exclude="$top/fs/xfs/*.[ch]" --exclude="$top/fs/btrfs/*.[ch]"
}

# allow FOLDER SANITIZER: rustc may compile for that one, too. The kernel's own Rust is not, but the driver is, see Kbuild.
allow() {
	cd "$1"
	sed -i "s/\(\"supported-sanitizers\", \[.*\)\]/\1, \"$2\"]/" scripts/generate_rust_target.rs
	grep -q "supported-sanitizers.*\"$2\"\]" scripts/generate_rust_target.rs
}

configure() {
	cd "$1"
	make "$llvm" tinyconfig
	cat "$config" >>.config
	make "$llvm" olddefconfig
}

# Kconfig drops what depends on something that is not there, and says nothing.
dropped() {
	local line name
	while read -r line; do
		case $line in
		CONFIG_*=*) grep -Fqx -- "$line" "$1/.config" || echo "$line" ;;
		'# CONFIG_'*' is not set')
			name=${line#\# }
			! grep -q "^${name%% *}=" "$1/.config" || echo "$line"
			;;
		esac
	done <"$config"
}

build() {
	cd "$1"
	make "$llvm" "-j$jobs" bzImage modules
}

# A module needs none of the objects, which are most of what is there.
finish() {
	cd "$1"
	mkdir -p guest/kernel
	cp arch/x86/boot/bzImage guest/vmlinuz
	make -s "$llvm" kernelrelease >guest/release
	sed 's/\.o$/.ko/' modules.order | xargs cp --parents -t guest/kernel
	find . \( -path ./scripts -o -path ./tools -o -path ./rust -o -path ./guest \) -prune -o \
		-type f \( -name '*.o' -o -name '*.ko' -o -name '*.a' -o -name '.*.cmd' -o -name '*vmlinux*' \
		! -name '*.[chS]' ! -name '*.sh' ! -name '*.lds*' ! -name 'Makefile*' \) -exec rm {} +
}

make_debug_kernel() {
	local lost
	step "debug kernel: unpacking $(basename "$archive")" "$PART_LOG.unpack.log" unpack "$1"
	[ ${#sanitizer[@]} -eq 0 ] || allow "$1" "${sanitizer[@]}"
	step "debug kernel: configuring" "$PART_LOG.configure.log" configure "$1"
	lost=$(dropped "$1")
	[ -z "$lost" ] || die "debug kernel: its configuration lacks what ${configs[*]##*/} asks for:"$'\n'"$lost"
	step "debug kernel: compiling" "$PART_LOG.build.log" build "$1"
	step "debug kernel: clearing up" "$PART_LOG.finish.log" finish "$1"
}

part "$kind" "$(key "$LINUX_VERSION" "$(stat -c %s "$archive")" "$llvm" "$(digest "${configs[@]}")" \
	"$(tools build.list kernel.list debug.list)" "$(declare -f unpack configure build finish)" "${sanitizer[@]}")" make_debug_kernel
prune "$kind" 1
echo "$PART"
