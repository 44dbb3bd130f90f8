#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/measure-host.sh [WHAT…]
#
# Measures the device, and prints a table for each WHAT:
#
#   switches      10,000 of them under load: what they leave behind (VBW_PAIRS: half as many)
#   latency       how long a switch takes, beside a flush
#   pauses        what a read sees of nine switches a second, beside none in either mode, and one between the two
#   slow-flush    what other writes see of a switch that flushes for two seconds, beside none
#   beside        what the monitor and other disks notice of switches, beside none
#   neighbours    what a guest of the storage daemon notices of another one that does its worst
#   synchronous   writes in write through, beside stock QEMU, and beside this QEMU without patches, and with
#                 those up to the one that repairs the flushes that it skips (VBW_ROWS: a pattern of the rows that
#                 are measured)
#   flushes       writes in write back with a flush after each few, beside the same (VBW_ROWS, too)
#   alone         one such write at a time, with a device and no guest
#   instructions  what a request costs in QEMU while nobody has asked for the feature, beside it without patches
#   errors        failed writes that are reported as done (VBW_FAILED: how many have to fail)
#
# All of them without any, which takes some hours. VBW_RUNS says of how many runs the medians are, if not of
# five. Best on a machine that does nothing else.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"

[ -n "${VBW_INITRAMFS-}" ] || exec "$VBW_SRC/scripts/run.sh" "$VBW_SRC/scripts/measure-host.sh" "$@"

qemu=$VBW_SRC/scripts/qemu.sh
repair=fixes/0012-block-do-not-skip-the-flush-of-a-write-with-FUA.patch
case " $* " in
"  " | *" synchronous "* | *" flushes "* | *" alone "* | *" instructions "*)
	number=$("$qemu" --patches | sed -n "\|^$repair$|=")
	[ -n "$number" ] || die "there is no patch $repair"
	VBW_QEMU_UNPATCHED=$("$qemu" --first 0)
	VBW_QEMU_REPAIRED=$("$qemu" --first "$number")
	export VBW_QEMU_UNPATCHED VBW_QEMU_REPAIRED
	;;
esac
exec python3 "$VBW_SRC/scripts/measure_host.py" "$@"
