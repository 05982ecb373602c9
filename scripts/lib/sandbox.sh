# SPDX-License-Identifier: GPL-2.0
#
# Enters the build root with bubblewrap. Inside, paths are the same on every machine
# and for every user, so that products do not depend on the paths of clone and cache:
#
#	/freelist	this clone
#	/kernel/source	a kernel's source (read-only)
#	/kernel/build	its build tree (O=)
#	/cargo		cargo's home
#
# Sourced after common.sh; the build root is in $ROOT.
# shellcheck shell=bash

# Variables that are passed on, mostly for access to the network.
PASSED=(http_proxy https_proxy no_proxy all_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY
	TERM CI)

# in_root BWRAP-OPTIONS... -- COMMAND...
in_root() {
	local options=() name
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	shift
	if [ "$(id -u)" -ne 0 ]; then options+=(--unshare-user --uid 0 --gid 0); fi
	for name in "${PASSED[@]}" "${!CARGO_@}" "${!FREELIST_@}"; do
		case $name in CARGO_HOME | CARGO_TARGET_DIR) continue ;; esac
		if [ -n "${!name+set}" ]; then options+=(--setenv "$name" "${!name}"); fi
	done
	if [ -d /etc/ssl/certs ]; then options+=(--ro-bind /etc/ssl/certs /etc/ssl/certs); fi
	if [ -r "${SSL_CERT_FILE:-}" ]; then
		options+=(--ro-bind "$SSL_CERT_FILE" /run/certs.pem --setenv SSL_CERT_FILE /run/certs.pem)
	fi
	for name in /etc/resolv.conf /etc/hosts; do
		if [ -e "$name" ]; then options+=(--ro-bind "$name" "$name"); fi
	done
	bwrap --die-with-parent --unshare-pid --unshare-ipc --unshare-uts --hostname freelist \
		--clearenv \
		--setenv PATH /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		--setenv HOME /tmp --setenv LC_ALL C.UTF-8 \
		--setenv KBUILD_BUILD_USER freelist --setenv KBUILD_BUILD_HOST freelist \
		--setenv CARGO_HOME /cargo \
		--ro-bind "$ROOT" / --dev /dev --dev-bind-try /dev/kvm /dev/kvm --proc /proc \
		--tmpfs /tmp --tmpfs /run \
		"${options[@]}" "$@"
}
