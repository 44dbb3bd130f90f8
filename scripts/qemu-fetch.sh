#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/qemu-fetch.sh RELEASE
#
# Fetches the source package that qemu-patches/RELEASE/source names, for example with RELEASE 10.2, from
# the suites that come after the build root's. Prints the folder that holds it.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
release=${1?which release? see scripts/qemu-fetch.sh --help}
[ -e "$VBW_SRC/qemu-patches/$release/source" ] || die "qemu-patches/$release/source is missing: nothing is known of QEMU $release"
# shellcheck source=qemu-patches/10.2/source
. "$VBW_SRC/qemu-patches/$release/source"

# Runs in the root with the host's network. The root is read-only, so apt keeps its lists elsewhere.
fetch() {
	local folder=$1
	mkdir -p "$folder/apt/lists/partial" "$folder/apt/cache/archives/partial"
	awk '/^deb / && !/-/ { print "deb-src", $2, "testing main"; print "deb-src", $2, "unstable main"; exit }' \
		/etc/apt/sources.list >"$folder/apt/sources.list"
	cat >"$folder/apt.conf" <<-EOF
		Dir::Etc::sourcelist "$folder/apt/sources.list";
		Dir::Etc::sourceparts "/dev/null";
		Dir::State::lists "$folder/apt/lists";
		Dir::Cache "$folder/apt/cache";
		APT::Sandbox::User "root";
		Acquire::Languages "none";
		// An old list does no harm, because the package is known by its checksum.
		Acquire::Check-Valid-Until "false";
	EOF
	export APT_CONFIG=$folder/apt.conf
	cd "$folder"
	apt-get update
	if ! apt-cache showsrc qemu | grep -Fx "Version: $VERSION" >/dev/null; then
		echo "The archive has no QEMU $VERSION any more. It has these:"
		apt-cache showsrc qemu | sed -n 's/^Version: /    /p'
		return 1
	fi
	apt-get source --download-only "qemu=$VERSION"
	echo "$DSC_SHA256  $(echo qemu_*.dsc)" | sha256sum --check --status
	rm -rf apt apt.conf
}

if [ "${2-}" = --inside ]; then
	fetch "$3"
	exit
fi

make_source() {
	step "QEMU: fetching the source of $VERSION" "$PART_LOG.log" \
		"$VBW_SRC/scripts/enter.sh" --net "$VBW_SRC/scripts/qemu-fetch.sh" "$release" --inside "$1"
}

! in_root || die "no source of QEMU $VERSION here; name its folder in VBW_QEMU_PACKAGE"
part qemu-package "$(key "$VERSION" "$(digest "$VBW_SRC/scripts/qemu-fetch.sh")")" make_source
prune qemu-package 2
echo "$PART"
