# SPDX-License-Identifier: GPL-2.0
#
# The entries of the cache, their inputs, and their order. A key is a digest of the
# inputs of an entry, without the text of scripts. A recipe number is incremented
# when a make-* script makes something else of the same inputs.
#
# Sourced after common.sh.
# shellcheck shell=bash

# shellcheck source=scripts/lib/cache.sh
. "$TOP/scripts/lib/cache.sh"
# shellcheck source=scripts/lib/sandbox.sh
. "$TOP/scripts/lib/sandbox.sh"

# need_root: sets ROOT and TOOLCHAIN. Installs the packages that the host lacks.
need_root() {
	local key recipe=1
	key=$({
		echo "$recipe"
		setting suite
		lines_of "$TOP/qemu/packages"
	} | digest)
	[ -d "$CACHE/root-$key" ] || "$TOP/scripts/lib/host-packages"
	cache_entry root "$key" make-root
	ROOT=$ENTRY/root
	TOOLCHAIN=$ENTRY/toolchain
}

# About how many MB are written to make each of qemu/roots.
declare -A ROOT_SIZES=([programs]=1200 [system]=700 [more_programs]=4000 [demo]=6000 [tracers]=1800)
# The time and the space that it takes, for the message before it.
declare -A ROOT_COSTS=([programs]="2 minutes, 0.3 GB in the cache"
	[system]="1 minute, 0.3 GB in the cache"
	[more_programs]="4 minutes, 1 GB in the cache" [demo]="5 minutes, 1.5 GB in the cache"
	[tracers]="2 minutes, 0.5 GB in the cache")

# need_image NAME: sets IMAGE, the path of a file system with the packages of
# qemu/roots/NAME.
need_image() {
	local key recipe=1
	key=$({
		echo "$recipe"
		setting suite
		lines_of "$TOP/qemu/roots/$1"
	} | digest)
	if [ ! -d "$CACHE/image-$1-$key" ]; then
		say "the root $1 is made once: about ${ROOT_COSTS[$1]}"
		"$TOP/scripts/lib/host-packages"
	fi
	cache_entry "image-$1" "$key" make-image "$1" "${ROOT_SIZES[$1]}"
	IMAGE=$ENTRY/image
}

# need_versions: sets VERSIONS, a directory with a directory for each series.
need_versions() {
	local key recipe=1
	need_root
	key=$({
		echo "$recipe"
		grep -v '^#' "$TOP/qemu/versions"
	} | digest)
	cache_entry versions "$key" make-versions "$ROOT"
	VERSIONS=$ENTRY
}

# Prints the series of qemu/versions that the archive has, and a message for each
# that it lacks. Needs need_versions.
known_series() {
	local series
	for series in $(setting series); do
		if [ -e "$VERSIONS/$series/release" ]; then
			echo "$series"
		else
			say "SKIP: Linux $series: the archive has none, only $(cat "$VERSIONS/$series/missing")"
		fi
	done
}

# Prints the first of them: the default kernel, whose source is also that of the kernels
# that are built here. Needs need_versions.
default_kernel() {
	local series
	series=$(known_series)
	[ -n "$series" ] || die "the archive has no kernel of the series in qemu/versions"
	echo "${series%%$'\n'*}"
}

# need_source SERIES: sets KERNEL_SOURCE. Needs need_versions.
need_source() {
	cache_entry source "$(cat "$VERSIONS/$1/version")" \
		make-source "$ROOT" "$VERSIONS/$1/packages"
	KERNEL_SOURCE=$ENTRY/source
}

# need_release RELEASE: sets VERSIONS, the directory with an entry for RELEASE, which `uname -r`
# prints. A release that the archive does not have is looked up again the next time.
need_release() {
	local key recipe=1
	need_root
	key=$1-$({
		echo "$recipe"
		setting suite
	} | digest)
	if [ -e "$CACHE/release-$key/$1/missing" ]; then remove_tree "$CACHE/release-$key"; fi
	cache_entry release "$key" make-versions "$ROOT" "$1"
	VERSIONS=$ENTRY
	[ -e "$VERSIONS/$1/release" ] ||
		die "the archive has no headers and source of $1, only of $(cat "$VERSIONS/$1/missing"): boot one of these" \
			"(apt install linux-image-RELEASE), or build in your own tree (KDIR=)"
}

# need_kernel SERIES|RELEASE|OWN: sets KERNEL_SOURCE, KERNEL_BUILD, KERNEL_RELEASE and
# KERNEL_ARGS, the arguments of make, and, but for a RELEASE, KERNEL_IMAGE.
need_kernel() {
	local name=$1 series=$1 key recipe=1 release
	need_versions
	if [[ $name == *+* ]] && ! grep -qxFs -e "$name" "$VERSIONS"/*/release; then
		need_release "$name"
	elif [[ $name == *+* ]]; then
		series=$(series_of "$name")
	fi
	if is_own "$name"; then
		series=$(default_kernel)
	elif [ ! -e "$VERSIONS/$series/release" ]; then
		die "no kernel $name: it is $(kernel_names) that the archive has" \
			"($(cat "$VERSIONS"/*/release "$VERSIONS"/*/missing 2>/dev/null | paste -sd' '))"
	fi
	release=$(cat "$VERSIONS/$series/release")
	need_source "$series"
	if is_own "$name"; then
		key=$({
			echo "$recipe"
			cat "$VERSIONS/$series/version" "$TOOLCHAIN"
			grep CONFIG_ "$TOP/qemu/$name.config"
		} | digest)
		cache_entry "$name" "$key" make-own "$ROOT" "$KERNEL_SOURCE" "$name"
		KERNEL_RELEASE=$(cat "$ENTRY/build/include/config/kernel.release")
		KERNEL_IMAGE=$ENTRY/build/arch/x86/boot/bzImage
	else
		key=$release-$({
			echo "$recipe"
			cat "$VERSIONS/$series/version" "$TOOLCHAIN"
		} | digest)
		# A kernel that is not booted here is a tree without its image.
		local kind=stock
		if [[ $series == *+* ]]; then kind=tree; fi
		cache_entry $kind "$key" make-stock "$ROOT" "$KERNEL_SOURCE" \
			"$VERSIONS/$series/packages" "$release" $kind
		KERNEL_RELEASE=$release
		KERNEL_IMAGE=$ENTRY/vmlinuz
	fi
	KERNEL_BUILD=$ENTRY/build
	KERNEL_ARGS=$(cat "$ENTRY/make-args")
}
