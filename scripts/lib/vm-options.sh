# SPDX-License-Identifier: GPL-2.0
#
# The options of scripts/vm, which scripts/profile passes on. Sourced after
# options.sh.
# shellcheck shell=bash

kernel=$(default_series) module='' module_args='' more='' cpus='' memory=1024 nodes=1 timeout='' icount='' trace='' gdb='' root='' disk='' secure_boot=''
with_module=yes files=() command=()

kind_root_or_image() {
	if [[ $1 == */* ]]; then
		kind_path "$1"
	elif [ ! -f "$TOP/qemu/roots/$1" ]; then
		echo "no root $1: it is one of $(cd "$TOP/qemu/roots" && echo *) (qemu/roots), or the path of an image"
	fi
}

# parse_vm ARGS...: sets the variables above.
parse_vm() {
	parse '
--kernel	kernel		kernel_or_image
--module	module		path
--no-module	with_module=
--module-args	module_args	text
--root		root		root_or_image
--disk		disk		new_file
--secure-boot	secure_boot	new_file
--add		files+		path
--cpus		cpus		count
--memory	memory		count
--nodes		nodes		count
--timeout	timeout		count
--append	more		text
--icount	icount=yes
--trace		trace		new_file
--gdb		gdb=yes
after--		command+' "$@"
	if [ -n "$icount" ] && [ "${cpus:-1}" -ne 1 ]; then
		wrong "--icount has one CPU: not with --cpus $cpus"
	fi
	if [ -n "$icount" ] && [ "$nodes" -ne 1 ]; then
		wrong "--icount has one node: not with --nodes $nodes"
	fi
	if [ -n "$root" ] && is_own "$kernel"; then
		wrong "--root $root: $(kernel_title "$kernel") has no disks"
	fi
	if [ -n "$gdb" ] && [ -z "$with_module" ]; then
		wrong "--gdb is for the module: not with --no-module"
	fi
	if [ -n "$disk" ]; then
		[ -n "$root" ] || wrong "--disk $disk: what is on it is a --root"
		[ -z "$module" ] || wrong "--disk and --module $module exclude each other"
		[ -z "$trace" ] || wrong "--disk and --trace $trace exclude each other"
		[ -z "$gdb" ] || wrong "--disk $disk and --gdb exclude each other"
		with_module=''
	fi
	if [ -n "$secure_boot" ]; then
		setting series | grep -qxF -e "$kernel" || wrong "--secure-boot $secure_boot: Debian has not signed the kernel $kernel"
		[ -z "$icount" ] || wrong "--secure-boot $secure_boot and --icount exclude each other"
	fi
	if [ -n "$module" ] && [ -z "$with_module" ]; then
		wrong "--no-module and --module $module exclude each other"
	fi
	if [[ $kernel == */* ]] && [ -n "$with_module" ] && [ -z "$module" ]; then
		wrong "--kernel $kernel: a kernel that is a file needs --module FILE or --no-module"
	fi
}
