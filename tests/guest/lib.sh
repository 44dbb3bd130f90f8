# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# What the guest's test scripts share. A script says what it tests in the comment
# at its top (that is its --help), has functions named test_SOMETHING, and ends
# with: run_tests "$@"
#
# Each test runs in a subshell: fail and skip leave it at once, and what it
# printed is shown with the result.

# kselftest installs the tools beside the scripts.
PATH=$(cd "$(dirname "$0")" && pwd):$PATH

# The disk under test, set by run_tests.
DISK=
SYS=

fail()
{
	echo "$*"
	exit 1
}

skip()
{
	echo "$*" > /tmp/skip-reason
	exit 4
}

# want EXPECTED FOUND WHAT
want()
{
	[ "$1" = "$2" ] || fail "$3: expected '$1', found '$2'"
}

need()
{
	command -v "$1" > /dev/null || skip "$1 is not installed in this guest"
}

mode()
{
	cat "$SYS/cache_type"
}

status()
{
	cat "$SYS/cache_type_status"
}

# What the block layer does: in write back it sends flushes.
block_mode()
{
	cat "$SYS/queue/write_cache"
}

# Write $1 into cache_type by one system call; prints OK or the error's name.
set_mode()
{
	if command -v vbwtool > /dev/null; then
		vbwtool set "$SYS/cache_type" "$1"
		return
	fi
	error=$( (printf %s "$1" > "$SYS/cache_type") 2>&1)
	case $error in
	'') echo OK ;;
	*'Invalid argument'*) echo EINVAL ;;
	*'I/O error'* | *'Input/output error'*) echo EIO ;;
	*'Permission denied'*) echo EACCES ;;
	*) echo "$error" ;;
	esac
}

# The mode is $1, and flushes reach the driver whatever it is.
want_mode()
{
	want "$1" "$(mode)" cache_type
	want "write back" "$(block_mode)" queue/write_cache
}

# Switch to $1 and see that everything agrees.
switch_to()
{
	want OK "$(set_mode "$1")" "setting $1"
	want_mode "$1"
	want "ok $1" "$(status)" cache_type_status
}

# Wait until a command succeeds, 30 seconds at most.
wait_until()
{
	tries=0
	until "$@"; do
		tries=$((tries + 1))
		[ $tries -lt 1500 ] || fail "waited 30 s in vain for: $*"
		usleep 20000
	done
}

# The driver that a disk's device is bound to.
driver_of()
{
	basename "$(readlink "/sys/block/$1/device/driver")"
}

script_help()
{
	sed -n '4,/^[^#]/s/^# \{0,1\}//p' "$0"
	echo "Usage: sh $(basename "$0") /dev/vdX [TEST...]   all tests, or just these"
	echo "       sh $(basename "$0") --list               their names"
	echo "Output is KTAP; the exit code 0 passed, 1 failed, 4 skipped."
	echo "What is on the disk is overwritten."
}

script_tests()
{
	sed -n 's/^test_\([a-z0-9_]*\)()$/\1/p' "$0"
}

# What a test has left running would hold its output open, and us with it.
end_children()
{
	# shellcheck disable=SC2046 # numbers
	kill $(jobs -p) 2> /dev/null
	wait
}

# The result of one test; its number is in $number.
run_test()
{
	[ ! -w /dev/kmsg ] || echo "<6>vbw-test: $1" > /dev/kmsg
	rm -f /tmp/skip-reason
	output=$( (trap end_children EXIT && "test_$1") 2>&1)
	code=$?
	[ -z "$output" ] || echo "$output" | sed 's/^/# /'
	case $code in
	0)
		echo "ok $number $1"
		passed=$((passed + 1))
		;;
	4)
		echo "ok $number $1 # SKIP $(cat /tmp/skip-reason)"
		;;
	*)
		echo "not ok $number $1"
		failed=$((failed + 1))
		;;
	esac
}

run_tests()
{
	case ${1-} in
	"")
		script_help >&2
		echo "1..0 # SKIP no disk was named"
		exit 4
		;;
	-h | --help)
		script_help
		exit 0
		;;
	--list)
		script_tests
		exit 0
		;;
	esac
	if [ ! -b "$1" ]; then
		echo "$(basename "$0"): $1 is not a disk; see --help" >&2
		exit 1
	fi
	DISK=${1##*/}
	SYS=/sys/block/$DISK
	shift
	[ $# -gt 0 ] || {
		# shellcheck disable=SC2046 # names have no blanks
		set -- $(script_tests)
	}

	number=0
	passed=0
	failed=0
	echo "KTAP version 1"
	echo "1..$#"
	for test in "$@"; do
		number=$((number + 1))
		run_test "$test"
	done
	[ $failed -eq 0 ] || exit 1
	[ $passed -gt 0 ] || exit 4
	exit 0
}
