# SPDX-License-Identifier: GPL-2.0
#
# Sourced after sandbox.sh.
# shellcheck shell=bash

# fetch PACKAGES NAME DIR LOG: downloads the package of the list PACKAGES whose name
# begins with NAME- to DIR/NAME.deb, and checks its hash.
fetch() {
	local uri hash size name
	# shellcheck disable=SC2034 # size and name are shown by step
	read -r uri hash size name < <(awk -v name="$2-" 'index($4, name) == 1' "$1")
	download() {
		in_root --bind "$3" /out -- /usr/lib/apt/apt-helper -o APT::Sandbox::User=root \
			download-file "$uri" "/out/$2.deb" "$hash"
	}
	step "downloading $name" MB $((size / 1000000)) \
		'du -sm --apparent-size "$dir"/*.deb 2>/dev/null | cut -f1' \
		"$4" download "$@" ||
		die "the archive may have dropped $name for a newer one: try make update"
}
