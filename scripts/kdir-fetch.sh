#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/kdir-fetch.sh RELEASE
#
# Fetches what scripts/kdir.sh needs for a Debian kernel that the build root does not have: the
# headers' configuration and symbols, and the source of the same version; and the kernel itself with its
# modules, for a guest. Prints the folder that holds them.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
release=${1?which kernel? see scripts/kdir-fetch.sh --help}

# Runs in the root with the host's network. The root is read-only, so apt keeps its lists elsewhere.
fetch() {
	local folder=$1 headers=linux-headers-$release source version
	source=linux-source-$(cut -d. -f1,2 <<<"$release")
	mkdir -p "$folder/apt/lists/partial" "$folder/apt/cache/archives/partial"
	cat >"$folder/apt.conf" <<-EOF
		Dir::State::lists "$folder/apt/lists";
		Dir::Cache "$folder/apt/cache";
		APT::Sandbox::User "root";
		Acquire::Languages "none";
	EOF
	export APT_CONFIG=$folder/apt.conf
	cd "$folder"
	apt-get update
	version=$(apt-cache madison "$headers" | awk -F' *[|] *' 'NR == 1 { print $2 }')
	if [ -z "$version" ]; then
		# Of the log its end is shown.
		apt-cache pkgnames linux-headers- | sed -n 's/^linux-headers-\([0-9].*-amd64\)$/    \1/p' | sort -V
		echo "The archive has no $headers. These are what it has."
		return 1
	fi
	apt-get download "$headers=$version" "$source=$version" \
		"linux-binary-$release=$version" "linux-modules-$release=$version"
	for package in ./*.deb; do
		dpkg-deb -x "$package" .
	done
	rm -rf apt apt.conf ./*.deb
}

if [ "${2-}" = --inside ]; then
	fetch "$3"
	exit
fi

make_packages() {
	step "KDIR: fetching the headers and the source of $release" "$PART_LOG.log" \
		"$VBW_SRC/scripts/enter.sh" --net "$VBW_SRC/scripts/kdir-fetch.sh" "$release" --inside "$1"
}

! in_root || die "no linux-headers-$release and linux-source here; install them"
part kernel "$(key "$release" "$(digest "$VBW_SRC/scripts/kdir-fetch.sh")")" make_packages
prune kernel 3
echo "$PART"
