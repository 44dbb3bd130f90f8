#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/plugin.sh
#
# Builds the plugins for QEMU: the one that counts a guest's instructions, scripts/plugin/count.c, whose path
# is printed, and beside it the one that tells which code is new, scripts/plugin/cover.c.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
run_inside "$@"

sources=("$VBW_SRC"/scripts/plugin/{count,cover}.c)
header=$("$VBW_SRC/scripts/qemu.sh" --source)/include/qemu

compile() {
	local source
	for source in "${sources[@]}"; do
		# shellcheck disable=SC2046 # words
		gcc -shared -fPIC -fvisibility=hidden -O2 -Wall -Wextra -Werror -isystem "$header" \
			$(pkg-config --cflags glib-2.0) -o "$1/lib$(basename "$source" .c).so" "$source"
	done
}
make_plugins() { step "plugins: compiling" "$PART_LOG.log" compile "$1"; }

part plugin "$(key "$(digest "${sources[@]}" "$header/qemu-plugin.h" "$0")" "$(tools build.list)")" make_plugins
prune plugin 3
echo "$PART/libcount.so"
