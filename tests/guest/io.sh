#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What is written is what is read: fio writes and verifies, in several sizes, by
# several interfaces, on all queues at once.
#
# QUEUES    expected number of hardware queues (default: any)

. "$(dirname "$0")/lib.sh"

# verify NAME FIO-OPTIONS: write with checksums, then read them all.
verify()
{
	need fio
	fio --name="$1" --filename="/dev/$DISK" --size=16m --verify=crc32c \
		--do_verify=1 --verify_fatal=1 --output=/tmp/fio.out "$2" "$3" "$4" "$5" "$6" ||
		fail "$(cat /tmp/fio.out)"
	grep -q 'err= 0' /tmp/fio.out || fail "$(cat /tmp/fio.out)"
}

test_queues()
{
	found=$(find "$SYS/mq" -mindepth 1 -maxdepth 1 -type d | wc -l)
	want "${QUEUES:-$found}" "$found" "hardware queues"
}

test_direct_random_512()
{
	block=$(cat "$SYS/queue/logical_block_size")
	verify small --rw=randwrite --bs="$block" --direct=1 --ioengine=psync --io_size=256k
}

test_direct_random_4k_depth_32_libaio()
{
	verify aio --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=32
}

test_direct_random_16k_depth_32_io_uring()
{
	verify uring --rw=randwrite --bs=16k --direct=1 --ioengine=io_uring --iodepth=32
}

test_direct_sequential_1m_depth_8()
{
	verify large --rw=write --bs=1m --direct=1 --ioengine=libaio --iodepth=8
}

test_mixed_sizes()
{
	verify mixed --rw=randwrite --bsrange=4k-256k --direct=1 --ioengine=libaio --iodepth=16
}

test_buffered_with_fsync()
{
	verify buffered --rw=randwrite --bs=8k --direct=0 --ioengine=psync --fsync=64
}

# Several processes on several CPUs, each in its own part of the disk.
test_four_jobs()
{
	need fio
	fio --name=jobs --filename="/dev/$DISK" --size=4m --offset_increment=4m --numjobs=4 \
		--group_reporting --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=32 \
		--verify=crc32c --do_verify=1 --verify_fatal=1 --output=/tmp/fio.out ||
		fail "$(cat /tmp/fio.out)"
}

# Known content for the host to find in the image, at a known place.
test_pattern_for_the_host()
{
	need vbwtool
	want OK "$(vbwtool write "/dev/$DISK" 17825792 65536 4711)" write
	want OK "$(vbwtool verify "/dev/$DISK" 17825792 65536 4711)" read
}

run_tests "$@"
