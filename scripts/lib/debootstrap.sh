# SPDX-License-Identifier: GPL-2.0
#
# Makes a Debian system in a directory. Sourced after common.sh.
# shellcheck shell=bash

# mmdebstrap works in a directory of its own, which the trap removes. The directory is
# not in the cache: the user IDs of an ordinary user's namespace may have no access
# there.
work=$(mktemp -d "${TMPDIR:-/var/tmp}/freelist-root.XXXXXX")
chmod 755 "$work"
trap 'rm -rf --one-file-system "$work" 2>/dev/null || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# debootstrap VARIANT DIR LIST MMDEBSTRAP-OPTIONS...: unpacks a Debian system with the packages
# that the file LIST names in DIR, from this machine's mirror, without its documentation. A line
# `source PACKAGE SUITE` of LIST is the source of a suite, unpacked in DIR/usr/src/PACKAGE; the tools to unpack
# it have to be in LIST, too. Needs pipefail.
debootstrap() {
	local variant=$1 dir=$2 list=$3 mode=root suite mirror source keyring package of sources=()
	shift 3
	suite=$(setting suite)
	mirror=$("$TOP/scripts/lib/mirror")
	keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	source="deb [signed-by=$keyring] $mirror $suite"
	if [ "$(id -u)" -ne 0 ]; then
		mode=unshare
		grep -q "^$(id -un):" /etc/subuid ||
			die "please run, as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $(id -un)"
	fi
	while read -r _ package of; do
		set -- "$@" --customize-hook="mkdir -p \"\$1/usr/src/$package\" && cd \"\$1/usr/src\" &&
			APT_CONFIG=\$MMDEBSTRAP_APT_CONFIG apt-get source --download-only --tar-only $package/$of &&
			chroot \"\$1\" sh -c 'cd /usr/src && tar -xf ${package}_*.tar.* -C $package --strip-components=1' &&
			rm ${package}_*"
		sources+=("deb-src [signed-by=$keyring] $mirror $of main")
	done < <(lines_of "$list" | grep '^source ')
	mkdir "$dir" || return
	# Through a tar stream: otherwise the files of an ordinary user would belong to
	# user IDs that only mmdebstrap can remove.
	TMPDIR=$work mmdebstrap --mode="$mode" --variant="$variant" --format=tar \
		--include="$(lines_of "$list" | grep -v '^source ' | paste -sd,)" \
		--aptopt='Apt::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/info/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--keyring="$keyring" "$@" "$suite" - \
		"$source main" \
		"${source/ $suite/ $suite-updates} main" \
		"${source/ $suite/ $suite-backports} main" ${sources[@]+"${sources[@]}"} |
		tar -x -C "$dir" --no-same-owner --exclude='./dev/*' || return
	mkdir -p "$dir/etc/ssl/certs" || return
	touch "$dir"/etc/{resolv.conf,hosts} || return
	chmod u+rwx "$dir"
}
