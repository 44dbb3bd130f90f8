#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Run by test_harness.py only: what a healthy kernel never says has to fail the
# test that ran meanwhile, and no other.

lib=/vbw/lib.sh
[ -e $lib ] || lib=$(dirname "$0")/../../guest/lib.sh
# shellcheck source=tests/guest/lib.sh
. "$lib"

test_before()
{
	echo "<6>nothing is wrong, not even with a debug: line" > /dev/kmsg
}

test_warning()
{
	echo "<4>WARNING: CPU: 0 PID: 1 at lib/selftest.c:1 selftest+0x1/0x2" > /dev/kmsg
}

test_between()
{
	:
}

test_fails()
{
	fail "it says why"
}

test_skips()
{
	skip "it says why"
}

test_leaves_a_child_behind()
{
	sleep 1000 &
}

run_tests "$@"
