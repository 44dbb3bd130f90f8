#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/fuzz-qemu.sh [RUNS [SEED [TARGET…]]] | --keep [TARGET…]
#
# Builds QEMU's fuzz targets, with the patches and with AddressSanitizer and UndefinedBehaviorSanitizer,
# and gives each TARGET (default: both of virtio-blk) RUNS inputs (default: 20000). They follow from SEED
# (default: 1) and from inputs that were found to be interesting: those of tests/fuzz/qemu, and what earlier
# runs have left in the cache. An input that makes QEMU fail is kept beside the log.
#
# --keep puts those into tests/fuzz/qemu that are enough to reach what all of them reach.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
run_inside "$@"

# In the build folder, in which nobody else builds meanwhile.
in_tree=''
if [ "${1-}" = --in-tree ]; then
	in_tree=true
	shift
fi
keep=''
if [ "${1-}" = --keep ]; then
	keep=$1 targets=("${@:2}")
else
	runs=${1-20000} seed=${2-1} targets=("${@:3}")
fi
[ ${#targets[@]} -gt 0 ] || targets=(virtio-blk-flags-fuzz virtio-blk-requests-fuzz)
out=${VBW_OUT:-$VBW_LOG}
corpus=$VBW_CACHE/fuzz kept=$VBW_SRC/tests/fuzz/qemu

if [ -n "$in_tree" ]; then
	export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 ASAN_OPTIONS=detect_leaks=0
	mkdir -p qemu-bundle/usr/share
	ln -sfn /usr/share/qemu /usr/share/seabios qemu-bundle/usr/share/
	for target in "${targets[@]}"; do
		mkdir -p "$corpus/$target"
		[ ! -e "$kept/$target" ] || python3 "$VBW_SRC/scripts/fuzz_corpus.py" unpack "$kept/$target" "$corpus/$target"
		if [ -n "$keep" ]; then
			least=$(mktemp -d)
			step "the fewest inputs of $target" "$out/$target-keep.log" \
				./qemu-fuzz-x86_64 "--fuzz-target=$target" -set_cover_merge=1 "$least" "$corpus/$target"
			mkdir -p "$kept"
			python3 "$VBW_SRC/scripts/fuzz_corpus.py" pack "$least" "$kept/$target"
			rm -r "$least"
			continue
		fi
		step "fuzzing $target, $runs runs" "$out/$target.log" \
			./qemu-fuzz-x86_64 "--fuzz-target=$target" "-runs=$runs" "-seed=$seed" -max_len=512 -len_control=0 -timeout=60 \
			"-artifact_prefix=$out/$target-" "$corpus/$target"
		sed -n 's/^Done /    &/p' "$out/$target.log" >&2
	done
	exit 0
fi
exec "$VBW_SRC/scripts/qemu.sh" --fuzz "$0" --in-tree "$@"
