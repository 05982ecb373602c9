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

# What a kernel is called where we speak of it.
kernel_title() {
	case $1 in
	debug) echo 'the debug kernel' ;;
	*) echo "Linux $1" ;;
	esac
}

# The lines of a file that are neither blank nor comments.
lines_of() { sed -e 's/[[:space:]]*#.*//' -e '/^$/d' "$1"; }

# A short name for what comes on stdin.
digest() { sha256sum | cut -c1-12; }

# Seconds as minutes and seconds, and those that have passed since START.
minutes() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }
elapsed() { minutes $((SECONDS - $1)); }

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

show_every=15

# step TEXT UNIT TOTAL COUNTER LOG COMMAND...
#
# Runs COMMAND with its output in LOG, and shows the number that the command
# COUNTER prints, of about TOTAL UNITs (`?`: unknown): in place on a
# terminal, else a line every $show_every seconds. At the end one line with the time it
# took; if COMMAND fails, the end of LOG.
#
# With seconds in $quiet_for, what ends before then shows nothing; with some in
# $about_seconds, it is said that it takes about so long.
step() {
	local text=$1 unit=$2 total=$3 counter=$4 log=$5 start=$SECONDS status=0
	shift 5
	mkdir -p "$(dirname "$log")"
	: >"$log"
	[ -n "${quiet_for:-}" ] || say "$text ..."
	run_job with_progress "$@" || status=$?
	if [ -t 2 ]; then printf '\r\033[K' >&2; fi
	if [ "$status" -ne 0 ]; then
		[ "$status" -ge 129 ] || tail -n 25 "$log" >&2
		say "$text: failed after $(elapsed "$start"), see $log"
		return "$status"
	fi
	if [ $((SECONDS - start)) -ge "${quiet_for:-0}" ]; then say "$text: done in $(elapsed "$start")"; fi
}

# The part of step that runs beside COMMAND: uses the caller's variables.
with_progress() {
	local pid shown=$SECONDS pause=0.05 count=0 now of='' about=''
	[ "$total" = '?' ] || of=" of about $total"
	[ -z "${about_seconds:-}" ] || about=" of about $(minutes "$about_seconds")"
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		if [ $((SECONDS - start)) -lt "${quiet_for:-1}" ]; then
			:
		elif [ -t 2 ] || [ $((SECONDS - shown)) -ge "$show_every" ]; then
			shown=$SECONDS
			# What is moved or removed on the way does not take a step back.
			now=$(eval "$counter" 2>/dev/null) || true
			if [[ $now =~ ^[0-9]+$ ]] && [ "$now" -gt "$count" ]; then count=$now; fi
			if [ -t 2 ]; then
				printf '\r\033[Kfreelist: %s: %s%s %s, %s%s' "$text" "$count" "$of" "$unit" "$(elapsed "$start")" "$about" >&2
			else
				say "$text: $count$of $unit, $(elapsed "$start")$about"
			fi
		fi
		# What is quick is not held up.
		if [ $SECONDS -gt "$start" ]; then pause=0.5; fi
		sleep "$pause"
	done
	wait "$pid"
}

# sources PATH...: a name for what is in all files there, but for what is only to be read.
sources() {
	find "$@" -name '*.md' -prune -o -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | digest
}
