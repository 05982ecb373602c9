# SPDX-License-Identifier: GPL-2.0
#
# The cache: directories that take long to make, shared by all clones.
#
#	$CACHE/NAME-KEY		a complete entry; KEY is a digest of its inputs
#	$CACHE/NAME-KEY.tmp.*	an entry that is being made, or the rest of a killed run
#	$CACHE/lock/NAME-KEY	locked by the process that makes the entry
#	$CACHE/log/NAME-KEY	the output of the script that made it
#
# Sourced after common.sh.
# shellcheck shell=bash

# An entry that was not used for so many days is removed when another one is made.
UNUSED_DAYS=21

# remove_tree DIR: removes a tree, with directories that are not writable (a tree
# of Debian's packages has some).
remove_tree() {
	[ -e "$1" ] || return 0
	rm -rf "$1" 2>/dev/null || { chmod -R u+rwX "$1" && rm -rf "$1"; }
}

# cache_entry NAME KEY MAKER ARGS...: sets ENTRY to the entry's directory.
# If it does not exist, `MAKER DIR LOG ARGS...` makes it in DIR, which is renamed
# when it is complete.
cache_entry() {
	local id=$1-$2 name=$1 lock
	shift 2
	ENTRY=$CACHE/$id
	if [ ! -d "$ENTRY" ]; then
		mkdir -p "$CACHE/lock" "$CACHE/log"
		exec {lock}>"$CACHE/lock/$id"
		if ! flock -n "$lock"; then
			say "another run is making $id: waiting for it"
			flock "$lock"
		fi
		if [ ! -d "$ENTRY" ]; then
			cache_sweep "$name"
			cache_make "$id" "$@" || exit
		fi
		exec {lock}>&-
	fi
	touch "$ENTRY"
}

# The trap removes the incomplete entry of a run that is interrupted or finds the
# disk full. Statuses are tested by hand: `set -e` is off where a caller tests the
# status of this function.
cache_make() (
	tmp=$CACHE/$1.tmp.$$ final=$CACHE/$1 log=$CACHE/log/$1 maker=$2
	shift 2
	trap 'remove_tree "$tmp"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	mkdir "$tmp" || exit
	run_job "$TOP/scripts/lib/$maker" "$tmp" "$log" "$@" || exit
	sync -f "$tmp" && mv -T "$tmp" "$final"
)

# cache_sweep NAME: removes incomplete entries of killed runs, and entries of NAME
# that are unused.
cache_sweep() {
	local tmp id lock
	for tmp in "$CACHE"/*.tmp.*; do
		[ -d "$tmp" ] || continue
		id=$(basename "${tmp%.tmp.*}")
		exec {lock}>"$CACHE/lock/$id"
		if [ "$ENTRY" = "$CACHE/$id" ] || flock -n "$lock"; then remove_tree "$tmp"; fi
		exec {lock}>&-
	done
	find "$CACHE" -maxdepth 1 -type d -name "$1-*" -mtime +$UNUSED_DAYS -print0 |
		while IFS= read -r -d '' tmp; do
			say "removing ${tmp##*/}, unused for $UNUSED_DAYS days"
			remove_tree "$tmp"
		done
}
