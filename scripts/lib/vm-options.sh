# SPDX-License-Identifier: GPL-2.0
#
# What scripts/vm takes, and scripts/profile passes on to it. Sourced after
# options.sh.
# shellcheck shell=bash

kernel=$(default_series) module='' module_args='' more='' cpus='' memory=1024 timeout='' icount='' trace=''
with_module=yes files=() command=()

# parse_vm ARGS...: sets the variables above.
parse_vm() {
	parse '
--kernel	kernel		kernel_or_image
--module	module		path
--no-module	with_module=
--module-args	module_args	text
--add		files+		path
--cpus		cpus		count
--memory	memory		count
--timeout	timeout		count
--append	more		text
--icount	icount=yes
--trace		trace		new_file
after--		command+' "$@"
	if [ -n "$icount" ] && [ "${cpus:-1}" -ne 1 ]; then
		wrong "--icount has one CPU: not with --cpus $cpus"
	fi
	if [ -n "$module" ] && [ -z "$with_module" ]; then
		wrong "--no-module and --module $module exclude each other"
	fi
	if [[ $kernel == */* ]] && [ -n "$with_module" ] && [ -z "$module" ]; then
		wrong "--kernel $kernel: a kernel that is a file wants --module FILE or --no-module"
	fi
}
