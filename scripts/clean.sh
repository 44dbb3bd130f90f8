#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/clean.sh
#
# Removes the cache, which is everything that was ever built, unless a run still uses it.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"

[ -d "$VBW_CACHE" ] || exit 0
[ -d "$VBW_CACHE/lock" ] || die "$VBW_CACHE is not a cache of this project; not removing it"
for file in "$VBW_CACHE"/lock/*; do
	[ -e "$file" ] || continue
	exec {fd}>>"$file"
	flock --exclusive --nonblock "$fd" || die "a run uses ${file##*/}; end it first"
done
for part in "$VBW_CACHE"/root/*; do
	remove_tree "$part"
done
remove_tree "$VBW_CACHE"
say "removed $VBW_CACHE"
