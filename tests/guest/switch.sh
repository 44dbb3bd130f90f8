#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The write cache's mode is switched, both ways, and all that the guest can see
# of it agrees.

. "$(dirname "$0")/lib.sh"

test_to_write_through()
{
	switch_to "write through"
}

test_to_write_back()
{
	switch_to "write back"
}

test_with_newline()
{
	want OK "$(set_mode "write through
")" "write through and a newline"
	want_mode "write through"
	want OK "$(set_mode "write back
")" "write back and a newline"
	want_mode "write back"
}

test_echo_and_redirection()
{
	echo "write through" > "$SYS/cache_type" || fail "echo failed"
	want_mode "write through"
	echo "write back" > "$SYS/cache_type" || fail "echo failed"
	want_mode "write back"
}

test_mode_already_in_force()
{
	for new in "write back" "write through"; do
		switch_to "$new"
		switch_to "$new"
	done
	switch_to "write back"
}

test_a_hundred_times()
{
	n=0
	while [ "$n" -lt 50 ]; do
		want OK "$(set_mode "write through")" "write through, time $n"
		want OK "$(set_mode "write back")" "write back, time $n"
		n=$((n + 1))
	done
	want_mode "write back"
}

# Data written in one mode is read in the other.
test_data_across_switches()
{
	need vbwtool
	switch_to "write back"
	want OK "$(vbwtool write "/dev/$DISK" 0 65536 1)" "write in write back"
	switch_to "write through"
	want OK "$(vbwtool verify "/dev/$DISK" 0 65536 1)" "read in write through"
	want OK "$(vbwtool write "/dev/$DISK" 65536 65536 2)" "write in write through"
	switch_to "write back"
	want OK "$(vbwtool verify "/dev/$DISK" 65536 65536 2)" "read in write back"
}

bad()
{
	want EINVAL "$(set_mode "$1")" "setting '$1'"
}

test_bad_words()
{
	before=$(status)
	for now in "write back" "write through"; do
		switch_to "$now"
		before=$(status)
		bad "write backx"
		bad "write throughx"
		bad "write bac"
		bad "write"
		bad "Write back"
		bad " write back"
		bad "write back "
		bad "write back write through"
		bad "none"
		bad "1"
		bad "
"
		bad "write back

"
		want_mode "$now"
		want "$before" "$(status)" "cache_type_status (a bad word is no request)"
	done
	switch_to "write back"
}

test_too_long()
{
	long=$(printf '%4000s' x)
	bad "$long"
	bad "write back$long"
	want_mode "write back"
}

test_status_is_read_only()
{
	want 444 "$(stat -c %a "$SYS/cache_type_status")" "cache_type_status's access mode"
}

# A change of the mode wakes those who poll the status, and tells udev.
test_status_wakes_pollers()
{
	need vbwtool
	switch_to "write back"
	vbwtool wait "$SYS/cache_type_status" "ok write through" 10 > /tmp/poller &
	poller=$!
	wait_until grep -q poll "/proc/$poller/wchan"
	switch_to "write through"
	wait "$poller"
	want OK "$(cat /tmp/poller)" "the poller"
	switch_to "write back"
}

# The number of change events of the disk that the listener has noted.
changes()
{
	grep -c "^change $DISK$" /tmp/uevents
}

uevent_asked_for()
{
	echo change > "$SYS/uevent"
	usleep 100000
	[ "$(changes)" -gt 0 ]
}

more_changes_than()
{
	[ "$(changes)" -gt "$1" ]
}

test_uevent()
{
	need uevent
	: > /tmp/uevents
	# shellcheck disable=SC2016 # for the shell that each event starts
	uevent sh -c 'echo "$ACTION $DEVNAME" >> /tmp/uevents' > /tmp/uevent.out 2>&1 &
	# The listener listens when it sees an event that is made for that.
	wait_until uevent_asked_for
	for new in "write through" "write back"; do
		before=$(changes)
		switch_to "$new"
		wait_until more_changes_than "$before"
	done
}

run_tests "$@"
