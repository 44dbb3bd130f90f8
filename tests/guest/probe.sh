#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The driver has taken the disk, and the disk is what the device says it is.
#
# SECTORS   expected size in sectors of 512 bytes (default: any)
# ACCESS    expected access mode of cache_type, 644 or 444 (default: 644)

. "$(dirname "$0")/lib.sh"

test_bound_to_our_driver()
{
	want virtio_blk_wce "$(driver_of "$DISK")" driver
	# What is built in has no module.
	grep -q "^virtio_blk_wce " /proc/modules || return 0
	want virtio_blk_wce "$(basename "$(readlink "$SYS/device/driver/module")")" module
}

test_capacity()
{
	sectors=$(cat "$SYS/size")
	[ "$sectors" -gt 0 ] || fail "size is $sectors"
	want "${SECTORS:-$sectors}" "$sectors" size
	want "$((sectors * 512))" "$(blockdev --getsize64 "/dev/$DISK")" getsize64
}

test_attributes()
{
	want "${ACCESS:-644}" "$(stat -c %a "$SYS/cache_type")" "cache_type's access mode"
	want 444 "$(stat -c %a "$SYS/cache_type_status")" "cache_type_status's access mode"
}

test_mode_at_start()
{
	case $(mode) in
	"write back" | "write through") ;;
	*) fail "cache_type is '$(mode)'" ;;
	esac
	want_mode "$(mode)"
	want none "$(status)" cache_type_status
}

test_first_and_last_sector()
{
	need vbwtool
	[ "$(cat "$SYS/ro")" = 0 ] || skip "read-only disk"
	size=$(blockdev --getsize64 "/dev/$DISK")
	for offset in 0 $((size - 4096)); do
		seed=$((offset + 1))
		want OK "$(vbwtool write "/dev/$DISK" "$offset" 4096 "$seed")" "write at $offset"
		want OK "$(vbwtool verify "/dev/$DISK" "$offset" 4096 "$seed")" "read at $offset"
	done
}

run_tests "$@"
