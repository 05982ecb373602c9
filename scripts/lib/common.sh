# SPDX-License-Identifier: GPL-2.0
#
# Sourced by every script: paths, messages to the user, and the progress of long
# steps.
# shellcheck shell=bash

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/freelist

say() { printf 'freelist: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The value of a key in qemu/versions: `setting suite`.
setting() { sed -n "s/^$1[[:space:]]\\+//p" "$TOP/qemu/versions"; }
# The series that is used where none is named.
default_series() { setting series | sed -n 1p; }

# The kernels that are built here, each from qemu/NAME.config; is_own NAME: whether it is one of them.
OWN_KERNELS=(debug nothp)
is_own() { [[ " ${OWN_KERNELS[*]} " == *" $1 "* ]]; }
# kernel_names: prints the names of all kernels, for messages.
kernel_names() { echo "$(printf '%s, ' "${OWN_KERNELS[@]}" | sed 's/, $//') or one of $(setting series | paste -sd' ')"; }

# series_of RELEASE, flavour_of RELEASE: print the series and the flavour of a release as
# `uname -r` prints it: 7.3 and cloud-amd64 of 7.3.4+deb13-cloud-amd64.
series_of() { grep -oE '^[0-9]+\.[0-9]+' <<<"$1" || true; }
flavour_of() { sed -nE 's/^[0-9.]+[+-]deb[0-9]+-//p' <<<"$1"; }

# kernel_title KERNEL: prints its name for messages.
kernel_title() {
	case $1 in
	debug) echo 'the debug kernel' ;;
	nothp) echo 'a kernel without huge pages' ;;
	*) echo "Linux $1" ;;
	esac
}

# lines_of FILE: prints the lines that are neither blank nor comments.
lines_of() { sed -e 's/[[:space:]]*#.*//' -e '/^$/d' "$1"; }

# Prints a digest of stdin.
digest() { sha256sum | cut -c1-12; }

# minutes SECONDS: prints a duration as minutes and seconds. elapsed START: the same
# of the time since START.
minutes() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }
elapsed() { minutes $((SECONDS - $1)); }

# run_job COMMAND...: runs COMMAND in a process group of its own. A signal to the
# script ends the whole group, and the script returns only when no process of it is
# left.
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
# Runs COMMAND with its output in LOG. Shows its progress: the number that the
# command COUNTER prints, of about TOTAL UNITs (`?`: unknown; a number that is passed is
# shown no more), in place on a terminal, else as a line every $show_every seconds. Ends
# with a line with the time it took, or with the last lines of LOG if COMMAND fails.
#
# A COMMAND that ends within $quiet_for seconds, if set, shows nothing. With
# $about_seconds the lines say that it takes about so long.
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

# Runs the COMMAND of step and shows its progress. Uses the variables of step.
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
			# A count that falls, as files are moved or removed, is not shown.
			now=$(eval "$counter" 2>/dev/null) || true
			if [[ $now =~ ^[0-9]+$ ]] && [ "$now" -gt "$count" ]; then count=$now; fi
			if [ "$total" != '?' ] && [ "$count" -gt "$total" ]; then of=''; fi
			if [ -t 2 ]; then
				printf '\r\033[Kfreelist: %s: %s%s %s, %s%s' "$text" "$count" "$of" "$unit" "$(elapsed "$start")" "$about" >&2
			else
				say "$text: $count$of $unit, $(elapsed "$start")$about"
			fi
		fi
		# A quick command is not delayed.
		if [ $SECONDS -gt "$start" ]; then pause=0.5; fi
		sleep "$pause"
	done
	wait "$pid"
}

# sources PATH...: prints a digest of all files there, except documentation.
sources() {
	find "$@" -name '*.md' -prune -o -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | digest
}
