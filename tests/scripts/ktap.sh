# SPDX-License-Identifier: GPL-2.0
#
# Sourced by the tests of scripts: each test is a function, which fails if one of its
# commands fails; its name reads as the promise that it holds.
# shellcheck shell=bash

# run_suite NAME TEST...: runs the tests, and prints KTAP. Each is a process of its own,
# `$0 --one TEST`, as `set -e` is off in a function whose status is tested. Signals
# have their defaults there: a process in the background, or under nohup, ignores some,
# and a shell cannot undo that (an interrupt would never arrive).
run_suite() {
	local suite=$1 test number=0 failures=0
	shift
	if [ "${one:-}" ]; then
		"$one"
		exit
	fi
	printf 'KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: %s\n    1..%d\n' "$suite" $#
	for test; do
		number=$((number + 1))
		if env --default-signal=HUP,INT,QUIT,TERM "$self" --one "$test" >"$scratch/log" 2>&1; then
			echo "    ok $number $test"
		else
			sed 's/^/    # /' "$scratch/log"
			echo "    not ok $number $test"
			failures=$((failures + 1))
		fi
	done
	if [ "$failures" -gt 0 ]; then echo "not ok 1 $suite"; else echo "ok 1 $suite"; fi
}

# expect NAME VALUE EXPECTED
expect() {
	if [ "$2" != "$3" ]; then
		echo "$1 is '$2', expected '$3'"
		exit 1
	fi
}

self=tests/scripts/$(basename "$0")
if [ "${1:-}" = --one ]; then one=$2; fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
