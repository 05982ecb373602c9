# SPDX-License-Identifier: GPL-2.0
#
# The machine, for scripts/package: the kernel that the module is for, the keys that sign it, the user that
# builds it. Sourced after common.sh.
# shellcheck shell=bash

# Tests look at the files of another machine.
MACHINE=${FREELIST_MACHINE:-}

# as_owner COMMAND...: runs it as the owner of this clone, to whom build output belongs, though root installs.
as_owner() {
	local owner
	owner=$(stat -c %U "$TOP")
	if [ "$(id -u)" -ne 0 ] || [ "$owner" = root ]; then
		"$@"
	else
		runuser -u "$owner" -- env HOME="$(getent passwd "$owner" | cut -d: -f6)" "$@"
	fi
}

# target_release KERNEL KDIR: prints the release that the module is for; without both the running one.
# Ends with advice if there can be no module for it.
target_release() {
	local kernel=$1 kdir=$2 release
	if [ -n "$kdir" ]; then
		cat "$kdir/include/config/kernel.release"
		return
	elif setting series | grep -qxF -e "$kernel"; then
		as_owner "$TOP/scripts/setup" >&2
		as_owner bash -c '. "$1/scripts/lib/common.sh"; . "$1/scripts/lib/entries.sh"; need_versions
			cat "$VERSIONS/$2/release"' sh "$TOP" "$kernel"
		return
	fi
	release=${kernel:-$(uname -r)}
	if ! setting series | grep -qxF -e "$(series_of "$release")"; then
		unsupported "$release"
	elif [[ $release != *+deb*-amd64 ]]; then
		die "Linux $release is no kernel of Debian's for amd64: build in its own tree, with KDIR=/path/to/its/build"
	fi
	echo "$release"
}

# unsupported RELEASE: ends with the kernels that are supported, and how to get one.
unsupported() {
	local series flavour suite
	series=$(setting series | sort -V | paste -sd' ' | sed 's/ / and /g')
	flavour=$(flavour_of "$1")
	suite=$(setting suite)-backports
	say "Linux $1 is not supported: freelist is for Linux $series."
	case $(series_of "$1") in
	[0-6].*) say "Kernels before them, Debian 13's own 6.12 too, have no metadata for Rust modules and an older kernel crate." ;;
	esac
	say "Debian 13 has one in $suite. As root:"
	if ! apt-get indextargets --format '$(RELEASE)' 2>/dev/null | grep -qx -e "$suite" -e stable-backports; then
		say "  echo 'deb MIRROR $suite main' >/etc/apt/sources.list.d/$suite.list && apt update   # MIRROR: as the other sources have it"
	fi
	say "  apt install -t $suite linux-image-${flavour:-amd64} && reboot"
	say "then again: make install"
	exit 1
}

# The machine's own key for modules, as dkms makes it.
KEY=$MACHINE/var/lib/dkms/mok.key
CERTIFICATE=$MACHINE/var/lib/dkms/mok.pub

# magic_of MODULE: prints its vermagic, read by this machine's modinfo or the build root's.
magic_of() {
	if command -v modinfo >/dev/null; then
		modinfo -F vermagic "$1"
	else
		in_root --ro-bind "$(realpath "$1")" "/run/${1##*/}" -- modinfo -F vermagic "/run/${1##*/}"
	fi
}

# check_magic MODULE RELEASE: ends where Linux RELEASE would refuse MODULE. Compares the build of MODULE with
# that of any other module of the kernel, beside the release.
check_magic() {
	local magic other wanted
	magic=$(magic_of "$1")
	[ "${magic%% *}" = "$2" ] || die "$1 is for Linux ${magic%% *}, not for $2"
	other=$(find -L "$MACHINE/lib/modules/$2/kernel" -name '*.ko*' -print -quit 2>/dev/null || true)
	if [ -n "$other" ]; then
		wanted=$(magic_of "$other")
		[ "$magic" = "$wanted" ] || die "$1 is for '$magic', Linux $2 is '$wanted'"
	fi
}

# sign MODULE RELEASE KDIR STAGED: signs MODULE with the machine's key, if it has one that we may read.
# Without a tree (KDIR) and the build root (STAGED) it takes the sign-file of the kernel's headers.
sign() {
	local tree=$3 hash work
	if [ ! -r "$KEY" ] || [ ! -r "$CERTIFICATE" ]; then return; fi
	if [ -z "$tree" ] && [ -n "$4" ]; then
		tree=$MACHINE/usr/src/linux-headers-$2
		[ -x "$tree/scripts/sign-file" ] || die "signing the module takes $tree/scripts/sign-file: apt install linux-headers-$2"
	fi
	if [ -n "$tree" ]; then
		hash=$(sed -n 's/^CONFIG_MODULE_SIG_HASH="\(.*\)"/\1/p' "$tree/.config")
		"$tree/scripts/sign-file" "${hash:-sha256}" "$KEY" "$CERTIFICATE" "$1"
	else
		# The owner's cache has the build root and the kernel's tree.
		CACHE=$(as_owner bash -c '. "$1/scripts/lib/common.sh"; echo "$CACHE"' sh "$TOP")
		need_kernel "$2"
		hash=$(sed -n 's/^CONFIG_MODULE_SIG_HASH="\(.*\)"/\1/p' "$KERNEL_BUILD/.config")
		# sign-file writes a file beside the module.
		work=$(mktemp -d)
		cp "$1" "$work/module.ko"
		in_root --ro-bind "$KERNEL_BUILD" /kernel/build --bind "$work" /run/work \
			--ro-bind "$KEY" /run/key --ro-bind "$CERTIFICATE" /run/certificate \
			-- /kernel/build/scripts/sign-file "${hash:-sha256}" /run/key /run/certificate /run/work/module.ko
		cp "$work/module.ko" "$1"
		rm -r "$work"
	fi
	say "the module is signed with $KEY"
	if command -v mokutil >/dev/null && ! mokutil --test-key "$CERTIFICATE" 2>/dev/null | grep -q 'is already enrolled'; then
		say "where Secure Boot is on, enroll that key: mokutil --import $CERTIFICATE, then reboot"
	fi
}

# takes_signed_only: whether the running kernel refuses a module without a signature that it knows.
takes_signed_only() {
	grep -q '\[\(integrity\|confidentiality\)\]' "$MACHINE/sys/kernel/security/lockdown" 2>/dev/null ||
		grep -q Y "$MACHINE/sys/module/module/parameters/sig_enforce" 2>/dev/null
}
