# SPDX-License-Identifier: GPL-2.0
#
# Sourced by the scripts that run in the system of tests/scripts/system.
# shellcheck shell=bash

release=$(uname -r)
module=freelist-module-$release
packages=/work/deb

# shellcheck source=tests/scripts/ktap.sh
. "${BASH_SOURCE[0]%/*}/ktap.sh"
self=$0
export FREELIST_QUIET=1
# Where make install puts programs.
export PATH=$PATH:/usr/local/bin

# says TEXT FILE: checks that a file has a text.
says() { grep -qE -e "$1" "$2" || { echo "no '$1' in:"; cat "$2"; exit 1; }; }

loaded() { grep -q '^freelist ' /proc/modules; }
the_device_belongs_to_the_group() { expect 'the device' "$(stat -c '%a %U %G' /dev/freelist)" '660 root freelist'; }

# Every file of the system but logs, caches and state; and every group.
everything() {
	find / -xdev \( -path /work -o -path /freelist -o -path /var/log -o -path /var/cache -o -path /var/tmp -o -path /root \
		-o -path /var/lib/systemd -o -path '/var/lib/dpkg/*-old' -o -path /home -o -path '/etc/*-' -o -path /var/mail \) -prune -o -print |
		LC_ALL=C sort
	cut -d: -f1 /etc/group
}

# lay_clone DIR: copies the files to DIR that `make install` and `make uninstall` read in a clone in which all was built.
lay_clone() {
	mkdir -p "$1/build"
	cp -a /work/{Makefile,scripts,qemu} "$1/"
	cp -a /work/install "$1/build/"
}

# hold USER: starts a process of USER, of the group, that has 48 MiB in an arena until goes_on, and then prints a
# check of their content. Its number is in $holder.
hold() {
	mkfifo "$scratch/go"
	chmod 755 "$scratch"
	chmod 666 "$scratch/go"
	runuser -u "$1" -- freelistctl run --strict -- perl -e '
		$| = 1;
		my $block = "a" x (48 << 20);
		print "holds ", length $block, "\n";
		open my $go, "<", $ARGV[0] or die; <$go>;
		print "still ", ($block =~ tr/a//), "\n"' "$scratch/go" >"$scratch/held" 2>&1 &
	holder=$!
	local tries
	for tries in $(seq 600); do
		if grep -q holds "$scratch/held"; then return; fi
		sleep 0.1
	done
	echo "no memory is held after $tries tries"
	cat "$scratch/held"
	exit 1
}
goes_on() {
	echo go >"$scratch/go"
	wait "$holder"
	says "^still $((48 << 20))\$" "$scratch/held"
}
