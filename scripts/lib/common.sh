# SPDX-License-Identifier: GPL-2.0
#
# Sourced by every script: where things are, how we speak to the user, and how
# a long step shows how far it is.
# shellcheck shell=bash

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/freelist

say() { printf 'freelist: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The value of a key in qemu/versions: `setting suite`.
setting() { sed -n "s/^$1[[:space:]]\\+//p" "$TOP/qemu/versions"; }
# The series that is meant where none is named.
default_series() { setting series | sed -n 1p; }

# The lines of a file that are neither blank nor comments.
lines_of() { sed -e 's/[[:space:]]*#.*//' -e '/^$/d' "$1"; }

# A short name for what comes on stdin.
digest() { sha256sum | cut -c1-12; }

elapsed() { printf "%d:%02d" $(((SECONDS - $1) / 60)) $(((SECONDS - $1) % 60)); }

# run_job COMMAND...: runs COMMAND in a process group of its own, so that a
# signal to us ends all of it, and we return only when none of it is left.
run_job() (
	set -m
	"$@" &
	job=$!
	set +m
	# shellcheck disable=SC2317 # called by the trap
	end_job() {
		local tries=0
		trap '' INT TERM HUP
		while kill -TERM -- "-$job" 2>/dev/null; do
			[ $((tries += 1)) -lt 50 ] || kill -KILL -- "-$job" 2>/dev/null || break
			sleep 0.1
		done
	}
	trap end_job EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	wait "$job"
)

# step TEXT UNIT TOTAL COUNTER LOG COMMAND...
#
# Runs COMMAND with its output in LOG, and shows the number that the command
# COUNTER prints, of about TOTAL UNITs: in place on a terminal, else a line
# every 15 seconds. At the end one line with the time it took; if COMMAND
# fails, the end of LOG.
step() {
	local text=$1 unit=$2 total=$3 counter=$4 log=$5 start=$SECONDS status=0
	shift 5
	mkdir -p "$(dirname "$log")"
	: >"$log"
	say "$text ..."
	run_job with_progress "$@" || status=$?
	if [ -t 2 ]; then printf '\r\033[K' >&2; fi
	if [ "$status" -ne 0 ]; then
		[ "$status" -ge 129 ] || tail -n 25 "$log" >&2
		say "$text: failed after $(elapsed "$start"), see $log"
		return "$status"
	fi
	say "$text: done in $(elapsed "$start")"
}

# The part of step that runs beside COMMAND: uses the caller's variables.
with_progress() {
	local shown=$SECONDS pid
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		if [ -t 2 ]; then
			printf '\r\033[Kfreelist: %s: %s of about %s %s, %s' "$text" \
				"$(eval "$counter")" "$total" "$unit" "$(elapsed "$start")" >&2
		elif [ $((SECONDS - shown)) -ge 15 ]; then
			shown=$SECONDS
			say "$text: $(eval "$counter") of about $total $unit, $(elapsed "$start")"
		fi
		sleep 0.5
	done
	wait "$pid"
}
