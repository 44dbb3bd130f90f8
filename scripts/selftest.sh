#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/selftest.sh
#
# Tests what scripts/lib.sh promises of the cache: a part is made once however many runs want it, a
# run that was killed leaves nothing that looks whole, and only parts that nobody uses are pruned.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"

VBW_CACHE=$(mktemp -d)
VBW_LOG=$VBW_CACHE/log
trap 'rm -rf "$VBW_CACHE"' EXIT
made=$VBW_CACHE/made

fail() {
	echo "failed: $*"
	exit 1
}

# eventually CMD…: waits for a condition, for at most ten seconds.
eventually() {
	local deadline=$((SECONDS + 10))
	until "$@"; do
		[ "$SECONDS" -lt "$deadline" ] || fail "never came true: $*"
		read -r -t 0.05 <> <(:) || true
	done
}

# Makers. The slow one waits until it is let go on, so that no test depends on who is faster.
quick() { echo "$$" >>"$made"; }
slow() {
	echo half >"$1/content"
	echo started >>"$made"
	eventually test -e "$VBW_CACHE/go"
	echo whole >"$1/content"
}
lines() { [ "$(wc -l <"$made")" -eq "$1" ]; }

killed_run_leaves_nothing() {
	local pid
	(part thing k slow) 2>/dev/null &
	pid=$!
	eventually test -e "$made"
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null || true
	[ ! -e "$VBW_CACHE/thing/k/$STAMP" ] || fail "a killed run left a stamp"
	touch "$VBW_CACHE/go"
	part thing k slow
	lines 2 || fail "what the killed run left was taken for whole"
	[ "$(cat "$PART/content")" = whole ] || fail "the part is not whole"
}

two_runs_make_it_once() {
	local first second
	(part thing k slow && cat "$PART/content" >"$VBW_CACHE/1") 2>/dev/null &
	first=$!
	eventually test -e "$made"
	(part thing k slow && cat "$PART/content" >"$VBW_CACHE/2") 2>"$VBW_CACHE/waits" &
	second=$!
	eventually grep -q 'waiting for another run' "$VBW_CACHE/waits"
	touch "$VBW_CACHE/go"
	wait "$first" "$second"
	lines 1 || fail "the part was made twice"
	[ "$(cat "$VBW_CACHE/1" "$VBW_CACHE/2")" = whole$'\n'whole ] || fail "a run saw a part that was not whole"
}

failed_maker_leaves_nothing() {
	local status=0
	(part thing k false) &
	wait $! || status=$?
	[ "$status" -ne 0 ] || fail "a failing maker went unnoticed"
	[ ! -e "$VBW_CACHE/thing/k/$STAMP" ] || fail "a failing maker left a stamp"
}

failing_step_ends_the_run() {
	local status=0
	# shellcheck disable=SC2317 # step calls it
	broken() {
		false
		true
	}
	(
		step title "$VBW_CACHE/step.log" broken
		touch "$VBW_CACHE/went-on"
	) 2>/dev/null &
	wait $! || status=$?
	[ "$status" -ne 0 ] || fail "step hid that a command in the middle failed"
	[ ! -e "$VBW_CACHE/went-on" ] || fail "the run went on after a failed step"
}

prune_keeps_what_is_used() {
	local name
	for name in old used new; do
		(part thing "$name" quick)
		touch -d "2020-01-0$((++day))" "$VBW_CACHE/thing/$name/$STAMP"
	done
	mkdir "$VBW_CACHE/thing/interrupted"
	lock shared thing-used test
	prune thing 1
	[ ! -e "$VBW_CACHE/thing/old" ] || fail "prune kept too many"
	[ ! -e "$VBW_CACHE/thing/interrupted" ] || fail "prune kept what an interrupted run left"
	[ -e "$VBW_CACHE/thing/used/$STAMP" ] || fail "prune removed a part in use"
	[ -e "$VBW_CACHE/thing/new/$STAMP" ] || fail "prune removed the newest part"
}

prune_keeps_what_was_asked_for() {
	local name
	for name in first second other last; do
		(part thing "$name" quick)
		touch -d "2020-02-0$((++day))" "$VBW_CACHE/thing/$name/$STAMP"
	done
	keep "$VBW_CACHE/thing/first" kernel-a
	keep "$VBW_CACHE/thing/other" kernel-b
	prune thing 1
	[ -e "$VBW_CACHE/thing/first/$STAMP" ] || fail "prune removed what a user had asked for"
	[ -e "$VBW_CACHE/thing/other/$STAMP" ] || fail "prune removed what a user had asked for by another name"
	[ ! -e "$VBW_CACHE/thing/second" ] || fail "prune kept what nobody had asked for"
	# Made again, from something else.
	(part thing second quick)
	keep "$VBW_CACHE/thing/second" kernel-a
	prune thing 1
	[ ! -e "$VBW_CACHE/thing/first" ] || fail "prune kept what was asked for and has been made anew"
	[ -e "$VBW_CACHE/thing/second/$STAMP" ] || fail "prune removed the new one"
}

day=0
for test in killed_run_leaves_nothing two_runs_make_it_once failed_maker_leaves_nothing \
	failing_step_ends_the_run prune_keeps_what_is_used prune_keeps_what_was_asked_for; do
	rm -rf "${VBW_CACHE:?}"/*
	# Not in a condition: the shell would ignore failing commands there.
	"$test"
	echo "ok: $test"
done
