#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/testdev.sh [--clippy]
#
# Builds the two devices for tests, tests/device and tests/specdev, from the crates that the build root
# has as packages, runs their unit tests, and prints the path of vbw-testdev; vbw-specdev is beside it.
# With --clippy the code is only checked.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
run_inside "$@"

crates=(device specdev)
registry=/usr/share/cargo/registry
[ -d "$registry" ] || die "$registry is missing: the packages of scripts/packages/testdev.list belong here"

# Cargo builds what changed, in one folder for each set of tools, and this keeps the result apart. It
# writes its lock file beside a copy of the crate, and knows of no other crates than the packages.
tools=$(tools testdev.list)
work=$VBW_CACHE/testdev-work/$(key "$tools")

# cargo_here COMMAND…
cargo_here() {
	local crate command
	rm -rf "$work/crate"
	mkdir -p "$work/home" "$work/crate"
	for crate in "${crates[@]}"; do
		cp -r --preserve=timestamps "$VBW_SRC/tests/$crate" "$work/crate/"
	done
	cat >"$work/home/config.toml" <<-EOF
		[source.crates-io]
		replace-with = "packages"
		[source.packages]
		directory = "$registry"
	EOF
	export CARGO_HOME=$work/home CARGO_TARGET_DIR=$work/target
	for crate in "${crates[@]}"; do
		cd "$work/crate/$crate"
		for command in "$@"; do
			# shellcheck disable=SC2086 # words
			cargo --offline $command
		done
	done
	touch "$work/$STAMP"
}

make_device() {
	lock exclusive "testdev-work-${work##*/}" "the test devices' objects"
	step "test devices: compiling" "$PART_LOG.log" cargo_here "build --release" "test --release"
	cp "$work/target/release/vbw-testdev" "$work/target/release/vbw-specdev" "$1/"
	unlock "$LOCK_FD"
}

if [ "${1-}" = --clippy ]; then
	lock exclusive "testdev-work-${work##*/}" "the test devices' objects"
	(cargo_here "clippy --release --all-targets -- -Dwarnings")
	exit
fi

part testdev "$(key "$(digest "${crates[@]/#/$VBW_SRC/tests/}" "$VBW_SRC/scripts/testdev.sh")" "$tools")" make_device
prune testdev 6
prune testdev-work 1
echo "$PART/vbw-testdev"
