#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/doc.sh
#
# Makes the documentation of the driver and of the layer below it with rustdoc, private items
# included, and prints the path of its first page. Warnings, such as links that lead nowhere, are
# errors.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
run_inside "$@"

work=$("$VBW_SRC/scripts/module.sh" --objects)
output=$work/doc

# rustdoc has to see a crate as rustc did. Kbuild keeps the command line for each object; what is
# taken out says where the object goes.
document() {
	local object command
	rm -rf "$output"
	cd "$work"
	for object in "$@"; do
		command=$(sed -n 's/^savedcmd_[^ ]* := //p' "$(dirname "$object")/.$(basename "$object").cmd")
		command=$(sed -E 's/ --(emit|out-dir)[= ][^ ]*//g; s/(^| )rustc /\1rustdoc /' <<<"$command")
		VIRTIO_BLK_WCE_BINDINGS=$work/rust/bindings/bindings_generated.rs RUSTC_BOOTSTRAP=1 \
			bash -c "$command -Dwarnings --document-private-items --output '$output'"
	done
}

lock exclusive "module-work-${work##*/}" "the driver's objects"
step "rustdoc" "$VBW_LOG/doc.log" document rust/kernel/kernel_ext.o drivers/block/virtio_blk_wce/driver.o
echo "$output/driver/index.html"
