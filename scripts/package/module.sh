# SPDX-License-Identifier: GPL-2.0
#
# Loads and unloads the installed module, and says why if that fails. For POSIX shells: sourced by
# install and uninstall, and a part of the packages' maintainer scripts.
# shellcheck shell=sh

freelist_say() { printf 'freelist: %s\n' "$*" >&2; }

# The processes that have an arena, as `PID (NAME)`.
freelist_users() {
	for process in /proc/[0-9]*; do
		if find "$process/fd" -lname /dev/freelist 2>/dev/null | grep -q . ||
			grep -q ' /dev/freelist$' "$process/maps" 2>/dev/null; then
			echo "${process#/proc/} ($(cat "$process/comm" 2>/dev/null))"
		fi
	done
}

# freelist_unload: unloads the module. Fails while arenas are open, and names their processes: it is
# never unloaded by force, so that no process loses its memory.
freelist_unload() {
	[ -d /sys/module/freelist ] || return 0
	if modprobe -r freelist 2>/dev/null || rmmod freelist 2>/dev/null; then return 0; fi
	users=$(freelist_users | paste -sd' ')
	freelist_say "the module stays loaded: arenas are open (${users:-in no process that is seen here})"
	return 1
}

# freelist_load RELEASE: loads what is installed for RELEASE, in place of an older one. A kernel that
# does not run, and a system that was not booted (a chroot), are left alone.
freelist_load() {
	if [ "$(uname -r)" != "$1" ]; then
		freelist_say "installed for Linux $1: loaded when it boots (this is $(uname -r))"
		return 0
	fi
	[ -d /run/systemd/system ] || return 0
	if ! freelist_unload; then
		freelist_say "the new one is loaded with the next boot, or by: modprobe -r freelist && modprobe freelist"
		return 0
	fi
	if error=$(modprobe freelist 2>&1); then return 0; fi
	freelist_say "the module does not load: $error"
	case $error in
	*'Key was rejected'* | *'Required key not available'* | *'Operation not permitted'*) freelist_signing ;;
	esac
	return 1
}

# Says how a kernel that loads signed modules only (Secure Boot, lockdown, module.sig_enforce) loads this one.
freelist_signing() {
	freelist_say "this kernel takes signed modules only. Once, as root:"
	freelist_say "  apt install dkms mokutil && dkms generate_mok"
	freelist_say "  mokutil --import /var/lib/dkms/mok.pub"
	freelist_say "  reboot: the firmware asks for the password just given, and enrolls the key"
	freelist_say "then, as root, make install (or make deb) signs the module with it."
}
