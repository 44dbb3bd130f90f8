#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/fuzz-qemu.sh [RUNS [SEED [TARGET…]]]
#
# Builds QEMU's fuzz targets, with the patches and with AddressSanitizer and UndefinedBehaviorSanitizer,
# and gives each TARGET (default: both of virtio-blk) RUNS inputs (default: 20000). They follow from SEED
# (default: 1) and from what earlier runs have found to be interesting, which is kept in the cache. An input
# that makes QEMU fail is kept beside the log.

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
runs=${1-20000} seed=${2-1} targets=("${@:3}")
[ ${#targets[@]} -gt 0 ] || targets=(virtio-blk-flags-fuzz virtio-blk-requests-fuzz)
out=${VBW_OUT:-$VBW_LOG}
corpus=$VBW_CACHE/fuzz

if [ -n "$in_tree" ]; then
	export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 ASAN_OPTIONS=detect_leaks=0
	mkdir -p qemu-bundle/usr/share
	ln -sfn /usr/share/qemu /usr/share/seabios qemu-bundle/usr/share/
	for target in "${targets[@]}"; do
		mkdir -p "$corpus/$target"
		step "fuzzing $target, $runs runs" "$out/$target.log" \
			./qemu-fuzz-x86_64 "--fuzz-target=$target" "-runs=$runs" "-seed=$seed" -max_len=512 -len_control=0 -timeout=60 \
			"-artifact_prefix=$out/$target-" "$corpus/$target"
		sed -n 's/^Done /    &/p' "$out/$target.log" >&2
	done
	exit 0
fi
exec "$VBW_SRC/scripts/qemu.sh" --fuzz "$0" --in-tree "$runs" "$seed" "${targets[@]}"
