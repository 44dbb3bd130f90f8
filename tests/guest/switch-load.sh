#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The mode is switched while the disk is busy: no request fails, nothing is lost,
# and switching never waits for luck.

. "$(dirname "$0")/lib.sh"

# Write with checksums and read them back, until end_load.
start_load()
{
	need fio
	rm -f /tmp/load.out
	fio --name=load --filename="/dev/$DISK" --offset=1m --size=8m --rw=randwrite --bs=4k \
		--direct=1 --ioengine=libaio --iodepth=32 --fsync=100 --verify=crc32c \
		--do_verify=1 --verify_fatal=1 --loops=1000 \
		--time_based --runtime=3600 --output=/tmp/load.out &
	load=$!
	wait_until disk_busy
}

disk_busy()
{
	read -r _ _ _ _ writes _ < "$SYS/stat"
	[ "$writes" -gt "${busy_from:-0}" ]
}

end_load()
{
	kill -INT "$load" || fail "the load ended before the switching did: $(cat /tmp/load.out)"
	# Its status tells of the signal.
	wait "$load" || :
	grep -q 'err= 0' /tmp/load.out || fail "fio: $(cat /tmp/load.out)"
}

flip()
{
	n=0
	while [ "$n" -lt "$1" ]; do
		want OK "$(set_mode "write through")" "write through"
		want OK "$(set_mode "write back")" "write back"
		n=$((n + 1))
	done
}

test_both_ways_under_load()
{
	start_load
	flip 20
	end_load
	want_mode "write back"
}

# Two who write at once are served one after the other, and both are answered.
test_two_writers()
{
	start_load
	(flip 15) > /tmp/writer1.out 2>&1 &
	one=$!
	(flip 15) > /tmp/writer2.out 2>&1 &
	two=$!
	wait "$one" || fail "first writer: $(cat /tmp/writer1.out)"
	wait "$two" || fail "second writer: $(cat /tmp/writer2.out)"
	end_load
	want_mode "$(mode)"
	want "ok $(mode)" "$(status)" cache_type_status
	switch_to "write back"
}

# Readers of the attributes see one of the two words, at any moment.
test_readers_while_switching()
{
	(flip 20) > /tmp/writer.out 2>&1 &
	writer=$!
	reads=0
	while kill -0 "$writer" 2> /dev/null; do
		case $(mode) in
		"write back" | "write through") ;;
		*) fail "cache_type is '$(mode)'" ;;
		esac
		case $(status) in
		none | "pending write "* | "ok write "*) ;;
		*) fail "cache_type_status is '$(status)'" ;;
		esac
		reads=$((reads + 1))
	done
	wait "$writer" || fail "the writer: $(cat /tmp/writer.out)"
	[ "$reads" -gt 5 ] || fail "only $reads reads while the mode was being switched"
}

run_tests "$@"
