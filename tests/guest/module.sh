#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The module and its disks come and go: loaded twice, unloaded, unbound and bound
# again, idle and in the middle of I/O.
#
# MODULE    the module's file (default: virtio_blk_wce.ko beside this script, or
#           the running kernel's)

. "$(dirname "$0")/lib.sh"

NAME=virtio_blk_wce
MODULE=${MODULE:-$(dirname "$0")/$NAME.ko}
[ -e "$MODULE" ] || MODULE=/lib/modules/$(uname -r)/kernel/drivers/block/$NAME/$NAME.ko
DRIVER=/sys/bus/virtio/drivers/$NAME

# The virtio device of the disk, e.g. virtio1
device_of_disk()
{
	basename "$(readlink -f "$SYS/device")"
}

loaded()
{
	grep -q "^$NAME " /proc/modules
}

disk_is_there()
{
	[ -b "/dev/$DISK" ] && [ -e "$SYS/cache_type" ]
}

disk_is_gone()
{
	[ ! -e "$SYS" ] && [ ! -e "/dev/$DISK" ]
}

disk_works()
{
	dd if=/dev/zero of="/dev/$DISK" bs=4k count=16 oflag=direct 2> /tmp/dd ||
		fail "writing: $(cat /tmp/dd)"
	dd if="/dev/$DISK" of=/dev/null bs=4k count=16 iflag=direct 2> /tmp/dd ||
		fail "reading: $(cat /tmp/dd)"
	switch_to "write through"
	switch_to "write back"
}

# What is built in can't be unloaded.
need_module()
{
	[ -e "$MODULE" ] || skip "there is no module"
}

load()
{
	loaded || insmod "$MODULE" || fail "insmod failed"
	wait_until disk_is_there
}

test_load_twice()
{
	need_module
	load
	if insmod "$MODULE" 2> /tmp/insmod; then
		fail "it loaded twice"
	fi
	grep -q "File exists" /tmp/insmod || fail "$(cat /tmp/insmod)"
	disk_works
}

test_unload_and_load()
{
	need_module
	n=0
	while [ "$n" -lt 5 ]; do
		rmmod "$NAME" || fail "rmmod failed"
		loaded && fail "it is still loaded"
		wait_until disk_is_gone
		load
		disk_works
		n=$((n + 1))
	done
}

# Bit 0 of the device's status: the guest has acknowledged that it is there.
want_acknowledged()
{
	status=$(cat "/sys/bus/virtio/devices/$device/status")
	want 1 $((status & 1)) "acknowledged, of status $status $1"
}

test_unbind_and_bind()
{
	device=$(device_of_disk)
	n=0
	while [ "$n" -lt 5 ]; do
		echo "$device" > "$DRIVER/unbind" || fail "unbind failed"
		wait_until disk_is_gone
		want_acknowledged "without a driver"
		echo "$device" > "$DRIVER/bind" || fail "bind failed"
		wait_until disk_is_there
		want_acknowledged "bound again"
		disk_works
		n=$((n + 1))
	done
}

# A disk that somebody uses keeps its module.
test_unload_while_open()
{
	need_module
	exec 4< "/dev/$DISK"
	if rmmod "$NAME" 2> /tmp/rmmod; then
		exec 4<&-
		fail "it was unloaded although the disk is open"
	fi
	exec 4<&-
	disk_works
}

start_io()
{
	need fio
	fio --name=io --filename="/dev/$DISK" --size=8m --rw=randrw --bs=4k --direct=1 \
		--ioengine=libaio --iodepth=32 --time_based --runtime=60 \
		--output=/tmp/fio.out > /tmp/fio.err 2>&1 &
	io=$!
	wait_until io_flows
}

io_flows()
{
	read -r reads _ < "$SYS/stat"
	[ "$reads" -gt 100 ]
}

io_has_ended()
{
	! kill -0 "$io" 2> /dev/null
}

test_unbind_under_io()
{
	device=$(device_of_disk)
	start_io
	echo "$device" > "$DRIVER/unbind" || fail "unbind failed"
	wait_until io_has_ended
	if wait "$io"; then
		fail "fio did not notice: $(cat /tmp/fio.out)"
	fi
	wait_until disk_is_gone
	echo "$device" > "$DRIVER/bind" || fail "bind failed"
	wait_until disk_is_there
	disk_works
}

test_unbind_while_switching_under_io()
{
	device=$(device_of_disk)
	start_io
	(while echo "write through" > "$SYS/cache_type" && echo "write back" > "$SYS/cache_type"; do
		:
	done) > /tmp/switcher 2>&1 &
	switcher=$!
	usleep 300000
	echo "$device" > "$DRIVER/unbind" || fail "unbind failed"
	wait_until io_has_ended
	wait "$switcher"
	wait_until disk_is_gone
	echo "$device" > "$DRIVER/bind" || fail "bind failed"
	wait_until disk_is_there
	disk_works
}

test_unload_at_the_end()
{
	need_module
	rmmod "$NAME" || fail "rmmod failed"
	wait_until disk_is_gone
	[ ! -e "$DRIVER" ] || fail "the driver is still registered"
	load
}

run_tests "$@"
