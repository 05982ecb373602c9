# SPDX-License-Identifier: GPL-2.0
#
# Parses the command line of all commands. A command passes a table of its options,
# a row an option:
#
#	--kernel	kernel		kernel
#	--add		files+		path
#	--icount	icount=yes
#	operands	names+		stage
#
# An option with a value sets the variable, or appends to the array if its name ends
# in +, after the value was checked to be of the KIND in the third column. An option
# without a KIND sets the variable to the text after the =. A row for operands is one
# of
#
#	operands VARIABLE+ KIND	operands, each of that KIND
#	command VARIABLE+	all words from the first operand on, with their options
#	after-- VARIABLE+	all words after --
#
# Without such a row the command takes no operands. --help prints the comment at the
# head of the command, and the output of its function more_help, on stdout. An error
# ends the command with status 2 and a line that names the option and the value. So a
# command calls `parse` before it changes anything.
#
# Sourced after common.sh.
# shellcheck shell=bash

COMMAND=$(basename "$0")

# wrong TEXT: ends the command with status 2, because of its command line.
wrong() {
	say "$COMMAND: $1 (see scripts/$COMMAND --help)"
	exit 2
}

help() {
	sed -n '4,${/^#/!q;s/^# \{0,1\}//p}' "$0"
	if declare -F more_help >/dev/null; then more_help; fi
}

# kind_KIND VALUE: prints why VALUE is not of that kind, or nothing if it is.
kind_text() { :; }
kind_count() { [[ $1 =~ ^[1-9][0-9]{0,8}$ ]] || echo "'$1' is not a whole number from 1 on"; }
kind_path() { [ -e "$1" ] || echo "there is no file $1"; }
kind_new_file() { [ -d "$(dirname "$1")" ] || echo "there is no directory $(dirname "$1")"; }
kind_kernel() {
	is_own "$1" || setting series | grep -qxF -e "$1" ||
		echo "no kernel $1: it is $(kernel_names) (qemu/versions)"
}
# A release is one of Debian's, of a series that we know.
kind_kernel_or_release() {
	if [[ $1 != *+deb*-* ]] || ! setting series | grep -qxF -e "$(series_of "$1")"; then kind_kernel "$1"; fi
}
kind_kernel_or_image() {
	if [[ $1 != */* ]]; then
		kind_kernel "$1"
	elif [ ! -f "$1" ]; then
		echo "there is no kernel $1"
	fi
}

# check_kind NAME KIND VALUE: ends the command unless VALUE, of the option NAME or
# without a NAME an operand, is of that KIND.
check_kind() {
	local complaint
	complaint=$("kind_$2" "$3")
	[ -z "$complaint" ] || wrong "${1:+$1: }$complaint"
}

# read_table TABLE: reads the rows of a table into the variables of parse.
read_table() {
	local o_name o_target o_kind
	while read -r o_name o_target o_kind; do
		case $o_name in
		--*)
			o_targets[$o_name]=$o_target o_kinds[$o_name]=$o_kind
			o_longs+=,${o_name#--}${o_kind:+:}
			;;
		?*)
			o_mode=$o_name o_rest=${o_target%+}
			o_kinds[operands]=${o_kind:-text}
			;;
		esac
	done <<<"$1"
}

# parse TABLE ARGS...
parse() {
	local o_name o_target o_kind o_longs=help o_mode=none o_parsed o_rest o_operand
	local -A o_targets=() o_kinds=()
	read_table "$1"
	shift
	# With a leading - getopt keeps the order of operands, with a leading + it stops at the first.
	local o_getopt=(env -u POSIXLY_CORRECT LC_ALL=C getopt --name "$COMMAND")
	if [ "$o_mode" = command ]; then o_getopt+=(--options +h); else o_getopt+=(--options -h); fi
	o_getopt+=(--longoptions "$o_longs" -- "$@")
	if ! o_parsed=$("${o_getopt[@]}" 2>/dev/null); then
		o_parsed=$("${o_getopt[@]}" 2>&1 >/dev/null | sed -n "1s/^$COMMAND: //p") || true
		wrong "$o_parsed"
	fi
	eval set -- "$o_parsed"
	local o_operands=()
	while [ "$1" != -- ]; do
		o_name=$1 o_target=${o_targets[$1]:-} o_kind=${o_kinds[$1]:-}
		shift
		case $o_name in
		-h | --help)
			help
			exit 0
			;;
		--*) ;;
		*)
			[ "$o_mode" != after-- ] || wrong "'$o_name': a command follows --"
			o_operands+=("$o_name")
			continue
			;;
		esac
		if [ -z "$o_kind" ]; then
			printf -v "${o_target%%=*}" '%s' "${o_target#*=}"
			continue
		fi
		check_kind "$o_name" "$o_kind" "$1"
		if [[ $o_target == *+ ]]; then
			local -n o_list=${o_target%+}
			o_list+=("$1")
			unset -n o_list
		else
			printf -v "$o_target" '%s' "$1"
		fi
		shift
	done
	shift
	o_operands+=("$@")
	[ ${#o_operands[@]} -gt 0 ] || return 0
	[ "$o_mode" != none ] || wrong "'${o_operands[0]}': it takes nothing but options"
	for o_operand in "${o_operands[@]}"; do check_kind '' "${o_kinds[operands]}" "$o_operand"; done
	local -n o_all=$o_rest
	o_all=("${o_operands[@]}")
}
