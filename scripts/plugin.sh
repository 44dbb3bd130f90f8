#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/plugin.sh
#
# Builds the plugin for QEMU that counts a guest's instructions, scripts/plugin/count.c, and prints its path.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
run_inside "$@"

source=$VBW_SRC/scripts/plugin/count.c
header=$("$VBW_SRC/scripts/qemu.sh" --source)/include/qemu

compile() {
	# shellcheck disable=SC2046 # words
	gcc -shared -fPIC -fvisibility=hidden -O2 -Wall -Wextra -Werror -isystem "$header" \
		$(pkg-config --cflags glib-2.0) -o "$1" "$source"
}
make_plugin() { step "plugin: compiling" "$PART_LOG.log" compile "$1/libcount.so"; }

part plugin "$(key "$(digest "$source" "$header/qemu-plugin.h" "$0")" "$(tools build.list)")" make_plugin
prune plugin 3
echo "$PART/libcount.so"
